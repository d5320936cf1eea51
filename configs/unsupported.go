package configs

import (
	"fmt"
	"strings"
)

// unsupported refuses settings that have a name but aren't implemented, so that
// nobody relies on one that does nothing. Whoever implements one removes its line.
func (c *checker) unsupported() {
	no := func(key string, set bool, instead string) {
		if set {
			c.add(key, fmt.Sprintf("%s: this version can't do that yet: %s", key, instead), false)
		}
	}
	no("tls.client_ca", c.TLS.ClientCA != "", "remove it")
	no("store.url", strings.HasPrefix(c.Store.URL, "postgres:") || strings.HasPrefix(c.Store.URL, "postgresql:"), `use "sqlite:" and the path of a file`)
	no("shared.redis", c.Shared.Redis != "", "remove it; each machine limits by itself")
	no("portal.address", c.Portal.Address != "", "remove it")
}

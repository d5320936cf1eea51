package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// A checker judges values that have the right type. A default is never a problem,
// so a key that isn't in the file can only be missing.
type checker struct {
	*document
	*Config
}

func (c *checker) check() {
	c.unsupported()
	c.names()
	c.listeners()
	c.tls()
	c.acme()
	c.upstreams()
	c.routes()
	c.mfa()
	c.rules()
	c.limits()
	c.passwords()
	c.geo()
	c.alerts()
	c.timeouts()
	c.storage()
	c.operation()
}

func (c *checker) names() {
	const must = "must be a DNS name such as \"mail.example.org\" (international ones in their xn-- form)"
	switch {
	case c.Hostname == "" && c.place["hostname"] == 0:
		c.missing("hostname", `the name by which mail programs call us, such as hostname = "mail.example.org" at the top`)
	case !isDNSName(c.Hostname):
		c.refuse("hostname", c.Hostname, must)
	}
	if c.DefaultDomain != "" && !isDNSName(c.DefaultDomain) {
		c.refuse("default_domain", c.DefaultDomain, must+`, or ""`)
	}
	c.oneOf("account_names", c.AccountNames, "ascii", "unicode")
	if c.AccountNames == "unicode" {
		c.warn("account_names", c.AccountNames, `an upstream that takes "alíce", or "alice" with a Cyrillic "а", for alice's mailbox lets its password in there as another account, without alice's second factor; "ascii" refuses such names`)
	}
}

func (c *checker) listeners() {
	if len(c.Listeners) == 0 {
		c.missing("listener", "write at least one [[listener]] with an address, such as address = \"0.0.0.0:993\"")
	}
	taken := map[string]string{} // who has an address already
	for i, l := range c.Listeners {
		key := fmt.Sprintf("listener[%d]", i)
		c.oneOf(key+".tls", l.TLS, "implicit", "starttls")
		if c.address(key+".address", l.Address, 0) {
			c.free(taken, key+".address", l.Address)
		}
		for _, prefix := range l.TrustedProxies {
			if prefix.Bits() == 0 {
				c.warn(key+".trusted_proxies", prefix.String(), "whoever connects from there can claim any address: name your proxies' own addresses")
			}
		}
	}
	if c.Metrics.Address != "" && c.address("metrics.address", c.Metrics.Address, 0) {
		c.free(taken, "metrics.address", c.Metrics.Address)
	}
}

// free refuses an address that something else listens on. Go takes every unspecified
// address for all addresses of both families, so each of them fills the port.
func (c *checker) free(taken map[string]string, key, address string) {
	host, port, _ := splitAddress(address)
	if port == 0 { // the system chooses
		return
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = ""
	} else if err == nil {
		host = ip.Unmap().String()
	}
	for other, who := range taken {
		otherHost, otherPort, _ := strings.Cut(other, " ")
		if otherPort == strconv.Itoa(port) && (otherHost == host || otherHost == "" || host == "") {
			c.refuse(key, address, "%s listens there already: choose another port, or remove one of them", who)
			return
		}
	}
	taken[host+" "+strconv.Itoa(port)] = key
}

func (c *checker) routes() {
	seen := map[string]string{}
	for i, r := range c.Routes {
		key := fmt.Sprintf("route[%d]", i)
		switch {
		case (r.Domain == "") == (r.Account == ""):
			c.add(key, key+": must have either domain or account, and not both", false)
			continue
		case r.Domain != "" && !isDNSName(r.Domain):
			c.refuse(key+".domain", r.Domain, `must be a domain, such as "example.org"`)
		case r.Account != "" && !accountName.MatchString(r.Account):
			c.refuse(key+".account", r.Account, `must be an account of letters, digits and ._-+@, such as "alice@example.org"`)
		case c.AccountNames == "ascii" && strings.ContainsFunc(r.Account, func(r rune) bool { return r > unicode.MaxASCII }):
			c.warn(key+".account", r.Account, `never used: account_names = "ascii" lets no such account in`)
		}
		if first, ok := seen[r.Domain+" "+r.Account]; ok {
			c.add(key, fmt.Sprintf("%s: never used, because %s is for the same and comes first", key, first), true)
		} else {
			seen[r.Domain+" "+r.Account] = key
		}
		var names []string
		unsure := c.damaged
		for j, u := range c.Upstreams {
			names = append(names, strconv.Quote(u.Name))
			unsure = unsure || c.failed[fmt.Sprintf("upstream[%d].name", j)]
		}
		if r.Upstream == "" && c.place[key+".upstream"] == 0 {
			c.missing(key+".upstream", "the name of an [[upstream]]")
		} else if !unsure && !slices.Contains(names, strconv.Quote(r.Upstream)) {
			c.refuse(key+".upstream", r.Upstream, "there is no such upstream: must be one of %s", strings.Join(names, ", "))
		}
	}
}

func (c *checker) mfa() {
	m, g := c.MFA, c.MFA.Grant
	c.oneOf("mfa.mode", m.Mode, "required", "optional", "observe")
	switch m.Mode {
	case "optional":
		c.warn("mfa.mode", m.Mode, `accounts without an enrolment get in with the password alone; "required" asks everybody. Other names that the upstream takes for an enrolled account's mailbox (aliases, plus addresses, names with or without a domain) are accounts of their own; default_domain completes bare names`)
	case "observe":
		c.warn("mfa.mode", m.Mode, `everybody gets in with the password alone, this only records it; "required" asks for the second factor`)
	}
	if !separator.MatchString(m.CodeSeparator) {
		c.refuse("mfa.code_separator", m.CodeSeparator, `must be "" or up to three of the signs on a US keyboard, no letters, digits or spaces, such as "," or "::"`)
	}
	switch {
	case m.RefusalDelay >= c.Timeouts.Login:
		c.refuse("mfa.refusal_delay", m.RefusalDelay, "must be shorter than timeouts.login (%s), which ends the attempt", c.Timeouts.Login)
	case m.RefusalDelay == 0:
		c.warn("mfa.refusal_delay", m.RefusalDelay, `the time of a refusal tells which part was wrong; "2s" hides it`)
	}

	c.oneOf("mfa.grant.from", g.From, "network", "tls-client", "both", "off")
	c.within("mfa.grant.ipv4_prefix", g.IPv4Prefix, 8, 32)
	c.within("mfa.grant.ipv6_prefix", g.IPv6Prefix, 16, 128)
	if g.IPv4Prefix < 16 {
		c.warn("mfa.grant.ipv4_prefix", g.IPv4Prefix, "a grant lets the password alone in from more than 65,536 addresses; 24 is usual")
	}
	if g.IPv6Prefix < 32 {
		c.warn("mfa.grant.ipv6_prefix", g.IPv6Prefix, "a grant lets the password alone in from a whole provider's network; 64 is one household")
	}
	for _, limit := range []struct {
		key            string
		absolute, idle Duration
	}{
		{"mfa.grant", g.Absolute, g.Idle},
		{"mfa.grant.tls_client", g.TLSClient.Absolute, g.TLSClient.Idle},
	} {
		c.positive(limit.key+".absolute", limit.absolute)
		c.positive(limit.key+".idle", limit.idle)
		if limit.idle > limit.absolute && limit.absolute > 0 && c.place[limit.key+".idle"] > 0 {
			c.warn(limit.key+".idle", limit.idle, "has no effect: the grant ends after %s anyway (%s.absolute)", limit.absolute, limit.key)
		}
	}
	if g.Absolute.D() > 30*day {
		c.warn("mfa.grant.absolute", g.Absolute, "one code is good for more than a month; an app password is made for that")
	}
}

func (c *checker) timeouts() {
	t := c.Timeouts
	c.positive("timeouts.handshake", t.Handshake)
	c.positive("timeouts.command", t.Command)
	c.positive("timeouts.login", t.Login)
	c.positive("timeouts.write", t.Write)
	if t.Login.D() > 20*time.Second {
		c.warn("timeouts.login", t.Login, "mail programs give up before that, and try again; 20s is plenty")
	}
	if t.Unauthenticated <= t.Login {
		c.refuse("timeouts.unauthenticated", t.Unauthenticated, "must be longer than timeouts.login (%s), or no attempt could take its time", t.Login)
	}
	if t.Idle.D() < 30*time.Minute {
		c.refuse("timeouts.idle", t.Idle, `must be at least "30m" (RFC 9051, section 5.4): mail programs rely on it when they wait for new mail`)
	}
	if t.Drain.D() > 90*time.Second {
		c.warn("timeouts.drain", t.Drain, "systemd kills a service that takes longer than 90s to stop, unless TimeoutStopSec says more")
	}
}

func (c *checker) storage() {
	path, sqlite := strings.CutPrefix(c.Store.URL, "sqlite:")
	switch {
	case c.Store.URL == "memory:":
		c.warn("store.url", c.Store.URL, "a restart forgets every enrolment, and lets a code be used twice; for trying out only")
	case !sqlite || path == "":
		c.refuse("store.url", c.Store.URL, `must be "sqlite:" and the path of a file, or "memory:"`)
	}
	if c.Store.KeyFile == "" {
		c.refuse("store.key_file", c.Store.KeyFile, "must be the path of a file; it is made on first start")
	} else {
		c.secret("store.key_file", c.Store.KeyFile, "with the store make codes")
	}
	if sqlite && path != "" && c.place["store.url"] > 0 {
		c.folder("store.url", c.Store.URL, filepath.Dir(path))
	}
}

// folder refuses a file whose folder isn't there.
func (c *checker) folder(key, value, path string) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.refuse(key, value, "there is no folder %s: make it, writable for the user that imapwarden runs as and nobody else", path)
	case err == nil && !info.IsDir():
		c.refuse(key, value, "%s is not a folder", path)
	}
}

func (c *checker) operation() {
	if u, err := url.Parse(c.Portal.URL); c.Portal.URL != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		c.refuse("portal.url", c.Portal.URL, `must begin with https:// and a host, such as "https://mail.example.org/", or be ""`)
	}

	// The kernel's sockaddr_un has 108 octets for the path and a NUL.
	if len(c.Admin.Socket) > 107 {
		c.refuse("admin.socket", c.Admin.Socket, "must be at most 107 octets long, with the folder")
	}
	if c.Admin.Socket != "" && anybodys(filepath.Dir(c.Admin.Socket)) {
		c.warn("admin.socket", c.Admin.Socket, "everybody on this machine may put a socket of their own there first; /run/imapwarden/ is ours alone")
	}

	if host, _, err := splitAddress(c.Metrics.Address); err == nil && !isLoopback(host) {
		c.warn("metrics.address", c.Metrics.Address, "anybody who reaches it can read the metrics; 127.0.0.1 keeps them on this machine")
	}
	c.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	c.oneOf("log.format", c.Log.Format, "json", "console")
	c.positive("audit.keep", c.Audit.Keep)
	if c.Audit.Most < 1 {
		c.refuse("audit.most", c.Audit.Most, "must be at least 1")
	}
	if file := c.Audit.File; file != "" {
		c.folder("audit.file", file, filepath.Dir(file))
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			c.refuse("audit.file", file, "is a folder: must be the path of a file, which is made where it isn't there")
		}
	}
}

// anybodys says if everybody on this machine may write to the folder, or make it.
func anybodys(folder string) bool {
	info, err := os.Stat(folder)
	if errors.Is(err, fs.ErrNotExist) && folder != filepath.Dir(folder) {
		return anybodys(filepath.Dir(folder))
	}
	return err == nil && info.Mode().Perm()&0o002 != 0
}

// refuse reports a value that must be another.
func (c *checker) refuse(key string, value any, format string, args ...any) {
	c.add(key, fmt.Sprintf("%s = %s: ", key, literal(value))+fmt.Sprintf(format, args...), false)
}

// warn reports a value that is allowed but unwise.
func (c *checker) warn(key string, value any, format string, args ...any) {
	c.add(key, fmt.Sprintf("%s = %s: ", key, literal(value))+fmt.Sprintf(format, args...), true)
}

// missing reports a key that has no default. Where lines couldn't be read it may be
// in one of them, and is better not talked about yet.
func (c *checker) missing(key, what string) {
	if !c.damaged {
		c.add(key, key+" is missing: "+what, false)
	}
}

func (c *checker) oneOf(key, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	quoted := make([]string, len(allowed))
	for i, a := range allowed {
		quoted[i] = strconv.Quote(a)
	}
	last := len(quoted) - 1
	if last > 0 {
		quoted[last-1] += " or " + quoted[last]
		quoted = quoted[:last]
	}
	c.refuse(key, value, "must be %s", strings.Join(quoted, ", "))
}

func (c *checker) within(key string, n, low, high int) {
	if n < low || n > high {
		c.refuse(key, n, "must be from %d to %d", low, high)
	}
}

func (c *checker) positive(key string, d Duration) {
	if d <= 0 {
		c.refuse(key, d, "must be longer than 0s")
	}
}

// address says if a host:port is good; the port is at least lowest.
func (c *checker) address(key, value string, lowest int) bool {
	if value == "" && c.place[key] == 0 {
		c.missing(key, `a host and a port, such as "127.0.0.1:143"`)
		return false
	}
	host, port, err := splitAddress(value)
	if err != nil || port < lowest || host == "" && lowest > 0 {
		c.refuse(key, value, `must be a host and a port as a number, such as "127.0.0.1:143", "[::1]:143" or "imap.example.org:993"`)
		return false
	}
	return true
}

// literal writes a value as it stands in the file.
func literal(value any) string {
	switch value.(type) {
	case int, bool:
		return fmt.Sprint(value)
	default:
		return strconv.Quote(fmt.Sprint(value))
	}
}

var (
	accountName = regexp.MustCompile(`^[\p{L}\p{N}._+@-]+$`)
	separator   = regexp.MustCompile(`^[!-/:-@\[-` + "`" + `{-~]{0,3}$`)
	dnsName     = regexp.MustCompile(`(?i)^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	onlyDigits  = regexp.MustCompile(`(^|\.)[0-9]+$`) // no top level domain has only digits: it is an address
)

func isDNSName(s string) bool {
	return len(s) <= 253 && dnsName.MatchString(s) && !onlyDigits.MatchString(s)
}

package configs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

func (c *checker) tls() {
	c.oneOf("tls.min_version", c.TLS.MinVersion, "1.2", "1.3")
	if len(c.TLS.Certificates) == 0 && len(c.TLS.ACME.Domains) > 0 { // those come of the CA
		return
	}
	if len(c.TLS.Certificates) == 0 {
		c.missing("tls.certificates", `write certificates = [{ cert = "fullchain.pem", key = "privkey.pem" }] under [tls]`)
		return
	}
	allRead, named := true, false
	for i, pair := range c.TLS.Certificates {
		if leaf := c.certificate(fmt.Sprintf("tls.certificates[%d]", i), pair); leaf == nil {
			allRead = false
		} else if leaf.VerifyHostname(c.Hostname) == nil {
			named = true
		}
	}
	if allRead && !named && isDNSName(c.Hostname) {
		c.add("tls.certificates[0].cert", fmt.Sprintf("tls.certificates: none is for the hostname %q: mail programs that connect to that name will warn their users", c.Hostname), true)
	}
}

// certificate reads one pair, and returns nil where it can't be used.
func (c *checker) certificate(key string, pair Certificate) *x509.Certificate {
	chain := c.read(key+".cert", pair.Cert, "the certificate with its chain, a PEM file")
	secret := c.read(key+".key", pair.Key, "the certificate's private key, a PEM file")
	if chain == nil || secret == nil {
		return nil
	}
	if encrypted(secret) {
		c.refuse(key+".key", pair.Key, "it is encrypted, remove the passphrase: openssl pkey -in OLD -out NEW")
		return nil
	}
	loaded, err := tls.X509KeyPair(chain, secret)
	if err != nil {
		c.refuse(key+".cert", pair.Cert, "doesn't work with %s: %s", pair.Key, strings.TrimPrefix(err.Error(), "tls: "))
		return nil
	}
	switch now, leaf := time.Now(), loaded.Leaf; {
	case now.After(leaf.NotAfter):
		c.warn(key+".cert", pair.Cert, "expired on %s: renew it, mail programs will refuse it", leaf.NotAfter.UTC().Format(time.DateTime+" MST"))
	case now.Before(leaf.NotBefore):
		c.warn(key+".cert", pair.Cert, "isn't valid before %s: is this machine's clock right?", leaf.NotBefore.UTC().Format(time.DateTime+" MST"))
	}
	c.private(key+".key", pair.Key)
	return loaded.Leaf
}

// encrypted says if a PEM file's key wants a passphrase: by its type (RFC 7468, section 11),
// or in OpenSSL's older way by a header (RFC 1421, section 4.6.1.3).
func encrypted(secret []byte) bool {
	for block, rest := pem.Decode(secret); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return true
		}
	}
	return false
}

func (c *checker) upstreams() {
	if len(c.Upstreams) == 0 {
		c.missing("upstream", "write at least one [[upstream]], the IMAP server behind us, such as address = \"127.0.0.1:143\"")
	}
	named := map[string]string{}
	for i, u := range c.Upstreams {
		key := fmt.Sprintf("upstream[%d]", i)
		if u.Name == "" {
			c.refuse(key+".name", u.Name, "must not be empty: routes, logs and metrics use it")
		} else if first, taken := named[u.Name]; taken {
			c.refuse(key+".name", u.Name, "%s has that name already: give each its own", first)
		} else {
			named[u.Name] = key
		}
		c.oneOf(key+".tls", u.TLS, "starttls", "implicit", "none")
		c.oneOf(key+".login", u.Login, "replay", "master")
		c.master(key, u)
		c.oneOf(key+".forward", u.Forward, "id", "proxy-v2", "off")
		if u.ServerName != "" && !isDNSName(u.ServerName) && net.ParseIP(u.ServerName) == nil {
			c.refuse(key+".server_name", u.ServerName, `must be the name in the upstream's certificate, such as "imap.example.org"`)
		}
		if u.CA != "" {
			if bundle := c.read(key+".ca", u.CA, ""); bundle != nil && !x509.NewCertPool().AppendCertsFromPEM(bundle) {
				c.refuse(key+".ca", u.CA, "there is no certificate in it: must be a PEM file with the CA's root")
			}
		}
		if c.address(key+".address", u.Address, 1) {
			c.ourselves(key+".address", u.Address)
			c.encryption(key, u)
		}
	}
}

// ourselves refuses an upstream that is one of our own listeners.
func (c *checker) ourselves(key, address string) {
	host, port, _ := splitAddress(address)
	for i, l := range c.Listeners {
		ourHost, ourPort, err := splitAddress(l.Address)
		ip, _ := netip.ParseAddr(ourHost)
		everywhere := ourHost == "" || ip.IsValid() && ip.IsUnspecified()
		if err == nil && port == ourPort && (host == ourHost || everywhere && isLoopback(host)) {
			c.refuse(key, address, "that is our own listener[%d] (%s): let the IMAP server listen on another port, and name that", i, l.Address)
			return
		}
	}
}

// encryption keeps passwords from crossing other people's networks in the clear.
func (c *checker) encryption(key string, u Upstream) {
	host, _, _ := splitAddress(u.Address)
	ip, err := netip.ParseAddr(host)
	near := isLoopback(host) || err == nil && (ip.Unmap().IsPrivate() || ip.IsLinkLocalUnicast())
	switch {
	case u.TLS == "none" && !near && !u.AllowPlaintext:
		c.refuse(key+".tls", u.TLS, `%s is neither on this machine nor a private address, and passwords would travel in the clear: use "starttls" or "implicit", or say allow_plaintext = true`, u.Address)
	case u.TLS == "none" && !near:
		c.warn(key+".allow_plaintext", u.AllowPlaintext, "every password travels to %s in the clear", u.Address)
	case u.TLS == "none" && !isLoopback(host):
		c.warn(key+".tls", u.TLS, `every password travels to %s in the clear, for all on that network to read; "starttls" hides it`, u.Address)
	case u.AllowPlaintext:
		c.warn(key+".allow_plaintext", u.AllowPlaintext, "isn't needed here, and would let a later mistake pass: remove it")
	}
	if u.TLS != "none" && err == nil && u.ServerName == "" {
		c.warn(key+".address", u.Address, "its certificate must be for the address %s, which is rare: say in server_name which name it has", host)
	}
}

// read returns a file's content, or nil. With what for, the file must be named.
func (c *checker) read(key, path, what string) []byte {
	if path == "" && c.place[key] == 0 {
		c.missing(key, what)
		return nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		c.refuse(key, path, "%v", unreadable(err))
		return nil
	}
	return content
}

// private warns of a key that everybody on the machine may read. Its group may:
// Debian's ssl-cert is one that shares keys.
func (c *checker) private(key, path string) {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o007 != 0 {
		c.warn(key, path, "everybody on this machine may use this private key: chmod o= %s", path)
	}
}

// splitAddress takes a host:port apart. The host may be empty, an address or a name.
func splitAddress(address string) (host string, port int, err error) {
	host, number, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("configs: reading address: %w", err)
	}
	p, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("configs: reading port: %w", err)
	}
	if _, ipErr := netip.ParseAddr(host); host != "" && ipErr != nil && !isDNSName(host) {
		return "", 0, fmt.Errorf("configs: reading host %q: neither an address nor a name", host)
	}
	return host, int(p), nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

package configs

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
)

// acme judges [tls.acme], where anything stands in it.
func (c *checker) acme() {
	a := c.TLS.ACME
	if reflect.DeepEqual(a, Default().TLS.ACME) {
		return
	}
	if len(a.Domains) == 0 {
		c.missing("tls.acme.domains", `the names to get certificates for, such as domains = ["mail.example.org"]`)
	}
	c.oneOf("tls.acme.challenge", a.Challenge, "tls-alpn-01", "http-01", "dns-01")
	c.acmeDomains()
	c.acmeAuthority()
	c.acmeBinding()
	c.acmeAddress()
	c.acmeDNS()
}

func (c *checker) acmeDomains() {
	a, seen := c.TLS.ACME, map[string]bool{}
	for i, domain := range a.Domains {
		key := fmt.Sprintf("tls.acme.domains[%d]", i)
		base, wildcard := strings.CutPrefix(domain, "*.")
		switch {
		case !isDNSName(base) || !strings.Contains(base, "."):
			c.refuse(key, domain, `must be a DNS name such as "mail.example.org" (international ones in their xn-- form); with dns-01 also "*.example.org"`)
		case wildcard && a.Challenge != "dns-01":
			c.refuse(key, domain, `a wildcard is had by challenge = "dns-01" alone`)
		case seen[domain]:
			c.refuse(key, domain, "is there twice: keep one")
		}
		seen[domain] = true
	}
	if !a.covers(c.Hostname) && len(a.Domains) > 0 && len(c.TLS.Certificates) == 0 && isDNSName(c.Hostname) {
		c.add("tls.acme.domains", fmt.Sprintf("tls.acme.domains: none is for the hostname %q: mail programs that connect to that name will warn their users", c.Hostname), true)
	}
}

func (c *checker) acmeAuthority() {
	a := c.TLS.ACME
	if u, err := url.Parse(a.Directory); a.Directory != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		c.refuse("tls.acme.directory", a.Directory, `must be the https:// address of a CA's ACME directory, or "" for Let's Encrypt`)
	}
	if !a.Agree {
		terms := "those that the directory names"
		if a.Directory == "" {
			terms = "Let's Encrypt's are at https://letsencrypt.org/repository/"
		}
		message := "tls.acme.agree must be true: a CA gives certificates to those alone who agree to its terms; " + terms
		c.add("tls.acme.agree", message, false)
	}
	if address, err := mail.ParseAddress(a.Email); a.Email != "" && (err != nil || address.Address != a.Email) {
		c.refuse("tls.acme.email", a.Email, `must be an address such as "postmaster@example.org", or ""`)
	}
	if a.CA == "" {
		return
	}
	if a.Directory == "" {
		c.refuse("tls.acme.ca", a.CA, "is for a CA of your own: name its directory too, or remove it")
		return
	}
	if content := c.read("tls.acme.ca", a.CA, ""); content != nil && !x509.NewCertPool().AppendCertsFromPEM(content) {
		c.refuse("tls.acme.ca", a.CA, "there is no certificate in it: must be a PEM file (-----BEGIN CERTIFICATE-----)")
	}
}

func (c *checker) acmeBinding() {
	e := c.TLS.ACME.EAB
	switch {
	case e == EAB{}:
	case e.KeyID == "":
		c.missing("tls.acme.eab.key_id", "the name that the CA gave to the key")
	case e.KeyFile == "":
		c.missing("tls.acme.eab.key_file", "a file whose first line is the key that the CA gave you, mode 0600")
	default:
		if _, err := e.Key(); err != nil {
			c.refuse("tls.acme.eab.key_file", e.KeyFile, "%v", err)
		}
	}
}

// acmeAddress judges where a CA's questions arrive.
func (c *checker) acmeAddress() {
	const key = "tls.acme.address"
	a := c.TLS.ACME
	wanted := map[string]int{"tls-alpn-01": 443, "http-01": 80}[a.Challenge]
	address := a.ChallengeAddress()
	switch {
	case a.Challenge == "dns-01" && a.Address != "":
		c.warn(key, a.Address, `has no effect with challenge = "dns-01": remove it`)
		return
	case wanted == 0:
		return
	case address == "":
		c.acmeListener()
		return
	case !c.address(key, address, 0):
		return
	}
	taken := map[string]string{}
	for i, l := range c.Listeners {
		if _, _, err := splitAddress(l.Address); err == nil {
			c.free(taken, fmt.Sprintf("listener[%d].address", i), l.Address)
		}
	}
	if _, _, err := splitAddress(c.Metrics.Address); err == nil {
		c.free(taken, "metrics.address", c.Metrics.Address)
	}
	c.free(taken, key, address)
	if _, port, _ := splitAddress(address); port != wanted {
		c.warn(key, address, "a CA asks at port %d of each domain, and nowhere else: see that it is forwarded here", wanted)
	}
}

// acmeListener looks for a listener of ours that a CA's questions can arrive at.
func (c *checker) acmeListener() {
	const key = "tls.acme.address"
	implicit, there := false, false
	for _, l := range c.Listeners {
		_, port, err := splitAddress(l.Address)
		implicit = implicit || l.TLS == "implicit"
		there = there || err == nil && l.TLS == "implicit" && port == 443
	}
	switch {
	case len(c.Listeners) == 0: // it is said there
	case !implicit:
		c.add(key, `tls.acme.address: a CA asks at port 443 of each domain, and no [[listener]] has tls = "implicit": say address = ":443"`, false)
	case !there:
		c.add(key, `tls.acme.address: a CA asks at port 443 of each domain, and no [[listener]] is there: say address = ":443", or see that it is forwarded to a [[listener]] with tls = "implicit"`, true)
	}
}

func (c *checker) acmeDNS() {
	a := c.TLS.ACME
	if a.Propagation < 0 {
		c.refuse("tls.acme.propagation", a.Propagation, "must not be negative")
	}
	if a.Challenge != "dns-01" {
		if a.DNS != Default().TLS.ACME.DNS || a.Hook != "" {
			c.add("tls.acme.dns", fmt.Sprintf(`tls.acme: dns and hook have no effect with challenge = %q: say challenge = "dns-01", or remove them`, a.Challenge), true)
		}
		return
	}
	switch {
	case a.DNS.Server == "" && a.Hook == "":
		c.missing("tls.acme.dns", `who writes the records of dns-01: dns = { server = "ns.example.org:53", key_name = "imapwarden", key_file = "dns.key" }, or hook = "/path/to/program"`)
	case a.Hook != "":
		c.program("tls.acme.hook", a.Hook)
	default:
		c.acmeUpdates()
	}
	if a.DNS.Server != "" {
		c.address("tls.acme.dns.server", a.DNS.Server, 1)
	}
}

// acmeUpdates judges what a server that takes updates has to be told.
func (c *checker) acmeUpdates() {
	d := c.TLS.ACME.DNS
	if d.Zone != "" && !isDNSName(strings.TrimSuffix(d.Zone, ".")) {
		c.refuse("tls.acme.dns.zone", d.Zone, `must be a zone such as "example.org", or "" to find it out`)
	}
	c.oneOf("tls.acme.dns.algorithm", d.Algorithm, "hmac-sha256", "hmac-sha384", "hmac-sha512")
	if d.KeyName == "" {
		c.missing("tls.acme.dns.key_name", "the name of the key that the server lets write the records")
	} else if !keyName(d.KeyName) {
		c.refuse("tls.acme.dns.key_name", d.KeyName, "must be the key's name as the server has it, such as \"imapwarden\"")
	}
	if d.KeyFile == "" {
		c.missing("tls.acme.dns.key_file", "a file whose first line is that key in base64, mode 0600")
	} else if _, err := d.Key(); err != nil {
		c.refuse("tls.acme.dns.key_file", d.KeyFile, "%v", err)
	}
}

// keyName says if a text may be a domain name in the wider sense, underscores included.
func keyName(name string) bool {
	return isDNSName(strings.ReplaceAll(strings.TrimSuffix(name, "."), "_", "x"))
}

// program refuses a file that can't be run.
func (c *checker) program(key, path string) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		c.refuse(key, path, "%v", unreadable(err))
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		c.refuse(key, path, "must be a program: chmod +x it")
	case info.Mode().Perm()&0o002 != 0:
		c.refuse(key, path, "everybody on this machine may change it: chmod o-w %s", path)
	}
}

// ChallengeAddress is where a listener is opened for the challenge alone: "" where there is no need.
func (a ACME) ChallengeAddress() string {
	switch {
	case a.Challenge == "dns-01" || a.Challenge == "tls-alpn-01" && a.Address == "":
		return ""
	case a.Address == "":
		return ":80"
	}
	return a.Address
}

// Key returns the key of the binding, in base64url without padding.
func (e EAB) Key() (string, error) {
	line, err := firstLine(e.KeyFile)
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "=")
	if _, err := base64.RawURLEncoding.DecodeString(line); err != nil {
		return "", errors.New("its first line isn't base64url: it must be the key (HMAC key) as the CA gave it to you")
	}
	return line, nil
}

// Key returns the key that updates are signed with, in base64.
func (d DNS) Key() (string, error) {
	line, err := firstLine(d.KeyFile)
	if err != nil {
		return "", err
	}
	if _, err := base64.StdEncoding.DecodeString(line); err != nil {
		return "", errors.New("its first line isn't base64: it must be the secret alone, without the name and algorithm around it")
	}
	return line, nil
}

// firstLine reads a file that holds a secret. Its errors have nothing of it.
func firstLine(path string) (string, error) {
	const most = 4096
	file, err := openRegular(path)
	if err != nil {
		return "", unreadable(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", unreadable(err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("others than its owner may read it (mode %04o), and it is a secret: chmod 600 %s", mode, path)
	}
	content := make([]byte, most)
	n, _ := file.Read(content)
	line, _, _ := bytes.Cut(content[:n], []byte("\n"))
	if line = bytes.TrimSpace(line); len(line) == 0 {
		return "", errors.New("its first line is empty")
	}
	return string(line), nil
}

// covers says if a domain is the name, or a wildcard over it.
func (a ACME) covers(name string) bool {
	name = strings.ToLower(name)
	_, parent, _ := strings.Cut(name, ".")
	return slices.Contains(a.Domains, name) || slices.Contains(a.Domains, "*."+parent)
}

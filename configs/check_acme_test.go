package configs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each text stands in [tls.acme], from line 6 on; domains and agree come before it.
func TestCheckACME(t *testing.T) {
	dir := folder(t)
	for name, content := range map[string]string{"good.key": "a2V5\n", "bad.key": "not base64!", "empty.key": "\nsecret", "shared.key": "a2V5", "hook": "#!/bin/sh\n", "loose": "", "plain": ""} {
		mode := os.FileMode(0o600)
		switch name {
		case "shared.key":
			mode = 0o640
		case "hook":
			mode = 0o755
		case "loose":
			mode = 0o777
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	const there = "\naddress = ':443'"
	for text, want := range map[string][]string{
		"address = ':443'":                nil,
		"address = '0.0.0.0:443'":         nil,
		"email = 'a@example.org'" + there: nil,
		"directory = 'https://ca.example.org/directory'\nca = 'fullchain.pem'" + there: nil,
		"eab = { key_id = 'kid', key_file = 'good.key' }" + there:                      nil,
		"challenge = 'http-01'":               nil,
		"challenge = 'dns-01'\nhook = 'hook'": nil,
		"challenge = 'dns-01'\ndns = { server = '127.0.0.1:53', key_name = 'a_b.', key_file = 'good.key' }": nil,
		"challenge = 'dns-01'\nhook = 'hook'\npropagation = '0s'":                                           nil,
	} {
		if diff := cmp.Diff(want, said(t, dir, required+acmeLines+text)); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
	for text, want := range map[string]string{
		"":                          `w.toml:5: warning: tls.acme.address: a CA asks at port 443 of each domain, and no [[listener]] is there: say address = ":443", or see that it is forwarded to a [[listener]] with tls = "implicit"`,
		"address = '127.0.0.1:993'": `w.toml:8: tls.acme.address = "127.0.0.1:993": listener[0].address listens there already: choose another port, or remove one of them`,
		"address = ':8443'":         `w.toml:8: warning: tls.acme.address = ":8443": a CA asks at port 443 of each domain, and nowhere else: see that it is forwarded here`,
		"address = 'here'":          `w.toml:8: tls.acme.address = "here": must be a host and a port as a number, such as "127.0.0.1:143", "[::1]:143" or "imap.example.org:993"`,
		"email = 'nobody'" + there:  `w.toml:8: tls.acme.email = "nobody": must be an address such as "postmaster@example.org", or ""`,
		"directory = 'http://ca.example.org/'" + there:                   `w.toml:8: tls.acme.directory = "http://ca.example.org/": must be the https:// address of a CA's ACME directory, or "" for Let's Encrypt`,
		"ca = 'fullchain.pem'" + there:                                   `w.toml:8: tls.acme.ca = "fullchain.pem": is for a CA of your own: name its directory too, or remove it`,
		"directory = 'https://ca.example.org/'\nca = 'good.key'" + there: `w.toml:9: tls.acme.ca = "good.key": there is no certificate in it: must be a PEM file (-----BEGIN CERTIFICATE-----)`,
		"eab = { key_id = 'kid' }" + there:                               "w.toml:8: tls.acme.eab.key_file is missing: a file whose first line is the key that the CA gave you, mode 0600",
		"eab = { key_file = 'good.key' }" + there:                        "w.toml:8: tls.acme.eab.key_id is missing: the name that the CA gave to the key",
		"eab = { key_id = 'kid', key_file = 'shared.key' }" + there:      `w.toml:8: tls.acme.eab.key_file = "shared.key": others than its owner may read it (mode 0640), and it is a secret: chmod 600 shared.key`,
		"eab = { key_id = 'kid', key_file = 'empty.key' }" + there:       `w.toml:8: tls.acme.eab.key_file = "empty.key": its first line is empty`,
		"eab = { key_id = 'kid', key_file = 'bad.key' }" + there:         `w.toml:8: tls.acme.eab.key_file = "bad.key": its first line isn't base64url: it must be the key (HMAC key) as the CA gave it to you`,
		"challenge = 'dns'":                                     `w.toml:8: tls.acme.challenge = "dns": must be "tls-alpn-01", "http-01" or "dns-01"`,
		"challenge = 'http-01'\naddress = ':8080'":              `w.toml:9: warning: tls.acme.address = ":8080": a CA asks at port 80 of each domain, and nowhere else: see that it is forwarded here`,
		"challenge = 'dns-01'":                                  `w.toml:5: tls.acme.dns is missing: who writes the records of dns-01: dns = { server = "ns.example.org:53", key_name = "imapwarden", key_file = "dns.key" }, or hook = "/path/to/program"`,
		"challenge = 'dns-01'\nhook = 'plain'":                  `w.toml:9: tls.acme.hook = "plain": must be a program: chmod +x it`,
		"challenge = 'dns-01'\nhook = 'loose'":                  `w.toml:9: tls.acme.hook = "loose": everybody on this machine may change it: chmod o-w loose`,
		"challenge = 'dns-01'\nhook = 'hook'\naddress = ':443'": `w.toml:10: warning: tls.acme.address = ":443": has no effect with challenge = "dns-01": remove it`,
		"challenge = 'dns-01'\ndns = { server = 'ns', key_name = 'k', key_file = 'good.key' }":                       `w.toml:9: tls.acme.dns.server = "ns": must be a host and a port as a number, such as "127.0.0.1:143", "[::1]:143" or "imap.example.org:993"`,
		"challenge = 'dns-01'\ndns = { server = 'ns:53', key_name = 'k', key_file = 'bad.key' }":                     `w.toml:9: tls.acme.dns.key_file = "bad.key": its first line isn't base64: it must be the secret alone, without the name and algorithm around it`,
		"challenge = 'dns-01'\ndns = { server = 'ns:53', key_file = 'good.key' }":                                    "w.toml:9: tls.acme.dns.key_name is missing: the name of the key that the server lets write the records",
		"challenge = 'dns-01'\ndns = { server = 'ns:53', key_name = 'k', key_file = 'good.key', algorithm = 'md5' }": `w.toml:9: tls.acme.dns.algorithm = "md5": must be "hmac-sha256", "hmac-sha384" or "hmac-sha512"`,
		"challenge = 'dns-01'\ndns = { server = 'ns:53', key_name = 'k', key_file = 'good.key', zone = '-' }":        `w.toml:9: tls.acme.dns.zone = "-": must be a zone such as "example.org", or "" to find it out`,
		"hook = 'hook'" + there: `w.toml:5: warning: tls.acme: dns and hook have no effect with challenge = "tls-alpn-01": say challenge = "dns-01", or remove them`,
	} {
		if diff := cmp.Diff([]string{want}, said(t, dir, required+acmeLines+text)); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
}

const acmeLines = "[tls.acme]\ndomains = ['mail.example.org']\nagree = true\n"

func TestCheckACMEDomains(t *testing.T) {
	const rest = "\nagree = true\naddress = ':443'"
	for text, want := range map[string][]string{
		"domains = ['Mail.example.org', 'imap.example.net']" + rest:                           nil,
		"domains = ['*.example.org']\nagree = true\nchallenge = 'dns-01'\nhook = '/bin/true'": nil,
		"agree = true": {`w.toml:5: tls.acme.domains is missing: the names to get certificates for, such as domains = ["mail.example.org"]`, `w.toml:5: warning: tls.acme.address: a CA asks at port 443 of each domain, and no [[listener]] is there: say address = ":443", or see that it is forwarded to a [[listener]] with tls = "implicit"`},
		"domains = ['mail.example.org']\naddress = ':443'": {"w.toml:5: tls.acme.agree must be true: a CA gives certificates to those alone who agree to its terms; Let's Encrypt's are at https://letsencrypt.org/repository/"},
		"domains = ['*.example.org']" + rest:               {`w.toml:6: tls.acme.domains[0] = "*.example.org": a wildcard is had by challenge = "dns-01" alone`},
		"domains = ['localhost']" + rest:                   {`w.toml:6: tls.acme.domains[0] = "localhost": must be a DNS name such as "mail.example.org" (international ones in their xn-- form); with dns-01 also "*.example.org"`},
		"domains = ['192.0.2.1']" + rest:                   {`w.toml:6: tls.acme.domains[0] = "192.0.2.1": must be a DNS name such as "mail.example.org" (international ones in their xn-- form); with dns-01 also "*.example.org"`},
		"domains = ['a.org', 'A.org']" + rest:              {`w.toml:6: tls.acme.domains[1] = "a.org": is there twice: keep one`},
	} {
		if diff := cmp.Diff(want, said(t, folder(t), required+"[tls.acme]\n"+text)); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
	// Without files, one of them should be for the hostname.
	without := "hostname = 'mail.example.org'\nlistener = [{ address = '127.0.0.1:993' }]\nupstream = [{ address = '127.0.0.1:143', tls = 'none' }]\n" +
		"[tls.acme]\ndomains = ['imap.example.org']" + rest
	if diff := cmp.Diff([]string{`w.toml:5: warning: tls.acme.domains: none is for the hostname "mail.example.org": mail programs that connect to that name will warn their users`}, said(t, folder(t), without)); diff != "" {
		t.Error(diff)
	}
}

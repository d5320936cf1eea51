package configs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// folder makes a folder with fullchain.pem and privkey.pem for mail.example.org.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	writePair(t, dir, "fullchain.pem", "privkey.pem", "mail.example.org", time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	return dir
}

func writePair(t *testing.T, dir, cert, key, name string, from, until time.Time) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, cert), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, filepath.Join(dir, key), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// required has one line for each thing without a default, so a test's own text,
// which comes behind it, begins in line 5.
const required = `hostname = "mail.example.org"
listener = [{ address = "127.0.0.1:993" }]
upstream = [{ address = "127.0.0.1:143", tls = "none" }]
tls.certificates = [{ cert = "fullchain.pem", key = "privkey.pem" }]
`

// said parses and returns what is printed, without the lines themselves.
func said(t *testing.T, dir, text string) (messages []string) {
	t.Helper()
	config, problems := Parse(filepath.Join(dir, "w.toml"), []byte(text))
	ok := true
	for _, p := range problems {
		ok = ok && p.Warning
		if p.Line > 0 && p.Text == "" {
			t.Errorf("no text with line %d: %s", p.Line, p)
		}
		p.Text = ""
		messages = append(messages, strings.ReplaceAll(p.String(), dir+"/", ""))
	}
	if ok != (config != nil) {
		t.Errorf("Parse returned a Config: %v; want %v, by %q", config != nil, ok, messages)
	}
	return messages
}

func TestLoad(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "imapwarden.toml")
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, path, required+`
default_domain = "Example.ORG"
[[route]]
account = "Alice@Example.org"
upstream = "default"
[mfa]
refusal_delay = "1s500ms"
[limits]
tarpit = ["1s", "15s"]
decoys = ["Trap@Example.org", "test*"]
trusted = ["::ffff:192.0.2.10/128", "2001:db8::/48"]
[alerts]
key_file = "state/webhook.key"
[store]
url = "sqlite:state/w.db"
key_file = "state/w.key"
`)
	got, problems := Load(path)
	if got == nil || len(problems) > 0 {
		t.Fatalf("not loaded: %v", problems)
	}
	want := Default()
	want.Hostname = "mail.example.org"
	want.DefaultDomain = "example.org"
	want.Listeners = []Listener{{Address: "127.0.0.1:993", TLS: "implicit"}}
	want.TLS.Certificates = []Certificate{{Cert: dir + "/fullchain.pem", Key: dir + "/privkey.pem"}}
	want.Upstreams = []Upstream{DefaultUpstream()}
	want.Upstreams[0].Address, want.Upstreams[0].TLS = "127.0.0.1:143", "none"
	want.Routes = []Route{{Account: "alice@example.org", Upstream: "default"}}
	want.MFA.RefusalDelay = Duration(1500 * time.Millisecond)
	want.Limits.Tarpit = []Duration{Duration(time.Second), Duration(15 * time.Second)}
	want.Limits.Decoys = []string{"trap@example.org", "test*"}
	want.Limits.Trusted = []netip.Prefix{netip.MustParsePrefix("192.0.2.10/32"), netip.MustParsePrefix("2001:db8::/48")}
	want.Alerts.KeyFile = dir + "/state/webhook.key"
	want.Store = Store{URL: "sqlite:" + dir + "/state/w.db", KeyFile: dir + "/state/w.key"}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
}

// Paths start at the file's folder and patterns are in lower case, whatever else is wrong.
func TestLoadResolves(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "imapwarden.toml")
	write(t, path, required+`
[[rule]]
accounts = ["Admin-*"]
network_files = ["vpn.txt", "/nowhere/vpn.txt"]
owners = [64496, 4_294_967_295]
tls = ["1.3"]
programs = ["Thunderbird*"]
[passwords]
file = "common.txt"
[geo]
countries = "country.mmdb"
owners = "asn.mmdb"
`)
	got, problems := Load(path, "hostname")
	if got == nil {
		t.Fatalf("not loaded: %v", problems)
	}
	rule := DefaultRule()
	rule.Accounts = []string{"admin-*"}
	rule.NetworkFiles = []string{dir + "/vpn.txt", "/nowhere/vpn.txt"}
	rule.Owners = []uint32{64496, 4294967295}
	rule.TLS = []string{"1.3"}
	rule.Programs = []string{"thunderbird*"}
	if diff := cmp.Diff([]Rule{rule}, got.Rules, cmp.AllowUnexported(Moment{}, Zone{})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Passwords{File: dir + "/common.txt", Action: "fresh-code"}, got.Passwords); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Geo{Countries: dir + "/country.mmdb", Owners: dir + "/asn.mmdb", Absent: "skip"}, got.Geo); diff != "" {
		t.Error(diff)
	}
}

func TestLoadWithoutFile(t *testing.T) {
	config, problems := Load("/nowhere/w.toml")
	want := "/nowhere/w.toml: can't be read: no such file or directory; name another file with --config or $IMAPWARDEN_CONFIG"
	if config != nil || len(problems) != 1 || problems[0].String() != want {
		t.Errorf("got %v, %v", config, problems)
	}
}

func TestProblemString(t *testing.T) {
	_, problems := Parse(filepath.Join(folder(t), "w.toml"), []byte(required+"  mfa.mode = \"requierd\"  # all\n"))
	if len(problems) != 1 {
		t.Fatal(problems)
	}
	problems[0].File = "w.toml"
	want := "w.toml:5: mfa.mode = \"requierd\": must be \"required\", \"optional\" or \"observe\"\n\tmfa.mode = \"requierd\"  # all"
	if got := problems[0].String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Every error of every kind is said in one run, each with its own line.
func TestEveryError(t *testing.T) {
	got := said(t, folder(t), `hostname = 5
default_domain = "bad domain"
colour = "red"

[[listener]]
address = "127.0.0.1:imaps"
tls = "ssl"
[[listener]]
tls = "starttls"
port = 143

[tls]
certificates = [
  { cert = "nowhere.pem", key = "privkey.pem" },
  { cert = "fullchain.pem" },
]
min_version = 1.2

[[upstream]]
address = "192.0.2.1:143"
tls = "none"
[upstream.master]
user = true

[[upstream]]
address = "127.0.0.1"
ca = "privkey.pem"

[[route]]
domain = "example.org"
account = "alice@example.org"
upstream = "default"
[[route]]
domain = "example.org"
upstream = "elsewhere"

[mfa]
mode = "requierd"
mode = "optional"
code_separator = "x"
grant = { from = "networrk", ipv4_prefix = 33, absolute = "forever", idle = "0s", hours = 3 }

[limits]
refusals = 0
account_failures = "ten"

[timeouts]
idle = "5m"
login = 15

[log]
level = "verbose"
[log]
format = "text"
`)
	want := []string{
		`w.toml:1: hostname = 5: must be a text in quotes`,
		`w.toml:2: default_domain = "bad domain": must be a DNS name such as "mail.example.org" (international ones in their xn-- form), or ""`,
		`w.toml:3: unknown key "colour": at the top there are hostname, default_domain, account_names, listener, tls, upstream, route, mfa, rule, limits, passwords, geo, alerts, timeouts, store, shared, portal, admin, metrics, log, audit`,
		`w.toml:6: listener[0].address = "127.0.0.1:imaps": must be a host and a port as a number, such as "127.0.0.1:143", "[::1]:143" or "imap.example.org:993"`,
		`w.toml:7: listener[0].tls = "ssl": must be "implicit" or "starttls"`,
		`w.toml:8: listener[1].address is missing: a host and a port, such as "127.0.0.1:143"`,
		`w.toml:10: unknown key "listener[1].port": listener[1] has address, tls, trusted_proxies`,
		`w.toml:14: tls.certificates[0].cert = "nowhere.pem": can't be read: no such file or directory (relative paths start at the configuration file's folder)`,
		`w.toml:15: tls.certificates[1].key is missing: the certificate's private key, a PEM file`,
		`w.toml:17: tls.min_version = 1.2: must be a text in quotes`,
		`w.toml:21: upstream[0].tls = "none": 192.0.2.1:143 is neither on this machine nor a private address, and passwords would travel in the clear: use "starttls" or "implicit", or say allow_plaintext = true`,
		`w.toml:23: upstream[0].master.user = true: must be a text in quotes`,
		`w.toml:25: upstream[1].name = "default": upstream[0] has that name already: give each its own`,
		`w.toml:26: upstream[1].address = "127.0.0.1": must be a host and a port as a number, such as "127.0.0.1:143", "[::1]:143" or "imap.example.org:993"`,
		`w.toml:27: upstream[1].ca = "privkey.pem": there is no certificate in it: must be a PEM file with the CA's root`,
		`w.toml:29: route[0]: must have either domain or account, and not both`,
		`w.toml:38: mfa.mode = "requierd": must be "required", "optional" or "observe"`,
		`w.toml:39: mfa.mode is given twice, first in line 38: keep one`,
		`w.toml:40: mfa.code_separator = "x": must be "" or up to three of the signs on a US keyboard, no letters, digits or spaces, such as "," or "::"`,
		`w.toml:41: mfa.grant.absolute = "forever": must be a duration in quotes, such as "90s", "12h" or "1d12h"`,
		`w.toml:41: unknown key "mfa.grant.hours": mfa.grant has from, ipv4_prefix, ipv6_prefix, absolute, idle, tls_client`,
		`w.toml:41: mfa.grant.from = "networrk": must be "network", "tls-client", "both" or "off"`,
		`w.toml:41: mfa.grant.ipv4_prefix = 33: must be from 8 to 32`,
		`w.toml:41: mfa.grant.idle = "0s": must be longer than 0s`,
		`w.toml:44: limits.refusals = 0: must be at least 1`,
		`w.toml:45: limits.account_failures = "ten": must be a whole number, without quotes`,
		`w.toml:48: timeouts.idle = "5m": must be at least "30m" (RFC 9051, section 5.4): mail programs rely on it when they wait for new mail`,
		`w.toml:49: timeouts.login = 15: must be a duration in quotes, such as "90s", "12h" or "1d12h"`,
		`w.toml:52: log.level = "verbose": must be "debug", "info", "warn" or "error"`,
		`w.toml:53: [log] is given twice, first in line 51: put the two together`,
		`w.toml:54: log.format = "text": must be "json" or "console"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Who needs only some keys isn't stopped by what is wrong elsewhere.
func TestLoadForSomeKeys(t *testing.T) {
	for text, usable := range map[string]bool{
		"":                             true,
		"limits.refusals = 0":          true,
		"tls.min_version = 'x'":        true,
		"upstream = 5":                 true,
		"mfa.mode = 'no'":              false,
		"store.url = 'mysql:x'":        false,
		"sotre.url = 'sqlite:x'":       false,
		"[store]\nkey_fil = 'x'":       false,
		"default_domain = 5":           false,
		"log.level = 'info":            false,
		"limits.refusals = 1\nstore=1": false,
	} {
		dir := folder(t)
		if err := os.Remove(filepath.Join(dir, "privkey.pem")); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "w.toml")
		write(t, path, required+text+"\n")
		config, problems := Load(path, "hostname", "default_domain", "store", "admin", "mfa")
		if (config != nil) != usable || len(problems) == 0 {
			t.Errorf("%q: usable %v, want %v (%v)", text, config != nil, usable, problems)
		}
		if all, _ := Load(path); all != nil {
			t.Errorf("%q: served without its key", text)
		}
	}
}

func TestByteOrderMark(t *testing.T) {
	got := said(t, folder(t), "\ufeff"+required+"mfa.mode = \"no\"\n")
	want := []string{
		`w.toml:1: begins with a byte order mark, which isn't TOML: save it as UTF-8 without BOM`,
		`w.toml:5: mfa.mode = "no": must be "required", "optional" or "observe"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMissing(t *testing.T) {
	got := said(t, folder(t), "[tls]\n")
	want := []string{
		`w.toml:1: tls.certificates is missing: write certificates = [{ cert = "fullchain.pem", key = "privkey.pem" }] under [tls]`,
		`w.toml: hostname is missing: the name by which mail programs call us, such as hostname = "mail.example.org" at the top`,
		`w.toml: listener is missing: write at least one [[listener]] with an address, such as address = "0.0.0.0:993"`,
		`w.toml: upstream is missing: write at least one [[upstream]], the IMAP server behind us, such as address = "127.0.0.1:143"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Each row is put behind what is required, or, with a row that begins with "=", is all.
func TestSyntax(t *testing.T) {
	for name, row := range map[string]struct {
		text string
		want []string
	}{
		"goes on behind broken lines": {
			"default_domain = \"example.org\n[mfa\nmode = \"x\"\n[log]\nlevel info\nformat = \"text\"\n",
			[]string{
				"w.toml:5: this isn't TOML: basic strings cannot have new lines",
				"w.toml:6: this isn't TOML: expected ']' to close table name",
				"w.toml:9: this isn't TOML: expected '=' after key",
				`w.toml:10: log.format = "text": must be "json" or "console"`,
			},
		},
		"nothing is missing that may be hidden": {
			"=hostname = mail.example.org\n[[listener]]\naddress = 127.0.0.1:993\n",
			[]string{
				"w.toml:1: this isn't TOML: unexpected character U+006D 'm' at start of value: a text stands in quotes",
				"w.toml:3: this isn't TOML: expected newline but got U+002E '.'",
			},
		},
		"a list that isn't closed": {
			"[tls]\nclient_ca = [\n  \"a\",\n[mfa]\nmode = \"x\"\n",
			[]string{
				"w.toml:6: this isn't TOML: unexpected character U+006D 'm' at start of value: a text stands in quotes (noticed in line 8)",
				`w.toml:9: mfa.mode = "x": must be "required", "optional" or "observe"`,
			},
		},
		"the end of the file": {
			"# fine\n[log]\nlevel = \"\"\"info\n",
			[]string{`w.toml:7: this isn't TOML: multiline basic string not terminated by """`},
		},
		"brackets": {
			"[[mfa]]\nmode = \"x\"\n[route]\nupstream = 1\n[portal.url]\n[nothing.here]\nx = 1\n",
			[]string{
				"w.toml:5: there is only one mfa: write [mfa], in one bracket",
				"w.toml:7: route is a list of tables: each begins with [[route]], in two brackets",
				"w.toml:9: portal.url is not a table: must be a text in quotes",
				`w.toml:10: unknown key "nothing": at the top there are hostname, default_domain, account_names, listener, tls, upstream, route, mfa, rule, limits, passwords, geo, alerts, timeouts, store, shared, portal, admin, metrics, log, audit`,
			},
		},
		"kinds of values": {
			"mfa = 1\nroute = [5]\nlog = [\"info\"]\nlimits.refusals = 3.0\nlimits.mode.x = 1\nrule = [{ networks = [\"10.0.0.0/33\"] }]\n",
			[]string{
				"w.toml:5: mfa = 1: must be a table, such as { key = value }",
				"w.toml:6: route[0] = 5: must be a table, such as { key = value }",
				"w.toml:7: log: must be a table, such as { key = value }",
				"w.toml:8: limits.refusals = 3.0: must be a whole number, without quotes",
				"w.toml:9: limits.mode is not a table: must be a text in quotes",
				`w.toml:10: rule[0].networks[0] = "10.0.0.0/33": must be a network in quotes, such as "203.0.113.0/24"`,
			},
		},
		"lists": {
			"[limits]\ntarpit = [\n  \"2s\",\n  5,\n  \"1h1d\",\n]\nobserve = \"unproved\"\nwebmail = [\"192.0.2.1\"]\n[[rule]]\nowners = [-1, 4294967296]\naccounts = [\"a\"]\n[[rule]]\nowners = [\n  \"AS64496\",\n]\n",
			[]string{
				`w.toml:8: limits.tarpit[1] = 5: must be a duration in quotes, such as "90s", "12h" or "1d12h"`,
				`w.toml:9: limits.tarpit[2] = "1h1d": must be a duration in quotes, such as "90s", "12h" or "1d12h"`,
				`w.toml:11: limits.observe = "unproved": must be a list, such as [ value, value ]`,
				`w.toml:12: limits.webmail[0] = "192.0.2.1": must be a network in quotes, such as "203.0.113.0/24"`,
				"w.toml:14: rule[0].owners[0] = -1: must be a whole number from 0 to 4294967295, without quotes",
				"w.toml:14: rule[0].owners[1] = 4294967296: must be a whole number from 0 to 4294967295, without quotes",
				`w.toml:18: rule[1].owners[0] = "AS64496": must be a whole number from 0 to 4294967295, without quotes`,
			},
		},
		"a list of texts isn't one of tables": {
			"[[rule]]\n[[rule.networks]]\n\"\" = 1\n[rule.weekdays]\n",
			[]string{
				"w.toml:6: rule[0].networks is not a table: must be a list, such as [ value, value ]",
				"w.toml:8: rule[0].weekdays is not a table: must be a list, such as [ value, value ]",
			},
		},
		"only go-toml sees it": {
			"mfa.mode = \"required\"\n[mfa]\nrefusal_delay = \"1s\"\n",
			[]string{"w.toml:6: this isn't TOML: table mfa already exists as defined by a dotted key"},
		},
		"terminal": {
			"default_domain = \"\x1b[31m\"\n",
			[]string{"w.toml:5: this isn't TOML: basic strings cannot have control characters"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			text, alone := strings.CutPrefix(row.text, "=")
			if !alone {
				text = required + text
			}
			if diff := cmp.Diff(row.want, said(t, folder(t), text)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A secret is neither in the message nor in the line, whatever is wrong around it.
func TestNoSecret(t *testing.T) {
	const secret = "hunter2"
	for _, text := range []string{
		`store.url = "postgres://warden:hunter2@db/w"`,
		`store.url = "mysql://warden:a@hunter2@db/w"`,
		`store.url = "postgres://db/w?password=hunter2"`,
		`store.url = 'host=db password=hunter2'`,
		`shared.redis = "redis://:hunter2@cache:6379"`,
		`shared.redis = 'redis://:hunter2@cache:6379`,
		`shared = { redis = "redis://:hunter2@cache:6379", x = 1 }`,
		`store = { url = 1, password = "hunter2" }`,
		`store.password = "x\"hunter2"`,
		`store.password = "hunter2`,
		`store.password = 'hunter2'`,
		`store.password = hunter2`,
		`passwords = { file = 1, password = "hunter2" }`,
		`alerts.webhook = "https://warden:hunter2@alerts.example.org/"`,
		`alerts.webhook = 'https://:hunter2@alerts.example.org/`,
		"[store]\nadmin_token = \"hunter2\"\n",
		"store.password = \"\"\"\nhunter2",
	} {
		_, problems := Parse(filepath.Join(folder(t), "w.toml"), []byte(required+text+"\n"))
		if len(problems) == 0 {
			t.Errorf("nothing wrong with %s", text)
		}
		for _, p := range problems {
			if strings.Contains(p.String(), secret) {
				t.Errorf("the secret is in: %s", p)
			}
		}
	}
	for _, line := range []string{`master = { password_file = "master.txt" }`, "password_per_day = 8", `passwords = { file = "common.txt" }`} {
		if redact(line) != line {
			t.Errorf("there is no secret in it: %s", redact(line))
		}
	}
}

// Whatever the bytes: no panic, an end, and lines that exist.
func FuzzParse(f *testing.F) {
	f.Add([]byte(required))
	f.Add([]byte(strings.ReplaceAll(Example, "/etc/imapwarden/", "/nowhere/")))
	f.Add([]byte("[[rule]]\nsince=\"2026-12-01\"\nhours=\"22:00-06:00\"\nzone=\"UTC\"\nweekdays=[\"mon\"]\n[[rule.networks]]\n\"\"=1\n"))
	f.Add([]byte("[[upstream]]\n[upstream.master]\nuser=[\n\n]\n[[x.y]]\n\"a.b\".c=1\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		config, problems := Parse("/nowhere/w.toml", data)
		if config != nil {
			t.Error("loaded, although its certificates can't be there")
		}
		for _, p := range problems {
			if p.Line < 0 || p.Line > 1+strings.Count(string(data), "\n") {
				t.Errorf("line %d of %d: %s", p.Line, strings.Count(string(data), "\n"), p.Message)
			}
		}
	})
}

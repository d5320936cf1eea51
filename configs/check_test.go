package configs

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Each text stands behind what is required, from line 5 on.
func TestCheck(t *testing.T) {
	for text, want := range map[string][]string{
		"": nil,

		// Allowed but unwise.
		`mfa.mode = "optional"`:                              {`w.toml:5: warning: mfa.mode = "optional": accounts without an enrolment get in with the password alone; "required" asks everybody. Other names that the upstream takes for an enrolled account's mailbox (aliases, plus addresses, names with or without a domain) are accounts of their own; default_domain completes bare names`},
		`mfa.mode = "observe"`:                               {`w.toml:5: warning: mfa.mode = "observe": everybody gets in with the password alone, this only records it; "required" asks for the second factor`},
		`mfa.refusal_delay = "0s"`:                           {`w.toml:5: warning: mfa.refusal_delay = "0s": the time of a refusal tells which part was wrong; "2s" hides it`},
		`mfa.grant.absolute = "31d"`:                         {`w.toml:5: warning: mfa.grant.absolute = "31d": one code is good for more than a month; an app password is made for that`},
		`mfa.grant.absolute = "30d"`:                         nil,
		`mfa.grant.idle = "13h"`:                             {`w.toml:5: warning: mfa.grant.idle = "13h": has no effect: the grant ends after 12h anyway (mfa.grant.absolute)`},
		`mfa.grant.absolute = "30m"`:                         nil,
		`mfa.grant.ipv4_prefix = 15`:                         {`w.toml:5: warning: mfa.grant.ipv4_prefix = 15: a grant lets the password alone in from more than 65,536 addresses; 24 is usual`},
		`mfa.grant.ipv4_prefix = 16`:                         nil,
		`mfa.grant.ipv6_prefix = 31`:                         {`w.toml:5: warning: mfa.grant.ipv6_prefix = 31: a grant lets the password alone in from a whole provider's network; 64 is one household`},
		`limits.mode = "observe"`:                            {`w.toml:5: warning: limits.mode = "observe": guessing is recorded but not stopped; "enforce" stops it`},
		`timeouts.login = "21s"`:                             {`w.toml:5: warning: timeouts.login = "21s": mail programs give up before that, and try again; 20s is plenty`},
		`timeouts.drain = "2m"`:                              {`w.toml:5: warning: timeouts.drain = "2m": systemd kills a service that takes longer than 90s to stop, unless TimeoutStopSec says more`},
		`store.url = "memory:"`:                              {`w.toml:5: warning: store.url = "memory:": a restart forgets every enrolment, and lets a code be used twice; for trying out only`},
		`admin.socket = "/tmp/admin.sock"`:                   {`w.toml:5: warning: admin.socket = "/tmp/admin.sock": everybody on this machine may put a socket of their own there first; /run/imapwarden/ is ours alone`},
		`metrics.address = ":9993"`:                          {`w.toml:5: warning: metrics.address = ":9993": anybody who reaches it can read the metrics; 127.0.0.1 keeps them on this machine`},
		`metrics.address = ""`:                               nil,
		`admin.socket = ""`:                                  nil,
		`tls.min_version = "1.3"`:                            nil,
		`account_names = "unicode"`:                          {`w.toml:5: warning: account_names = "unicode": an upstream that takes "alíce", or "alice" with a Cyrillic "а", for alice's mailbox lets its password in there as another account, without alice's second factor; "ascii" refuses such names`},
		`account_names = "ascii"`:                            nil,
		"[[route]]\naccount = 'älice'\nupstream = 'default'": {`w.toml:6: warning: route[0].account = "älice": never used: account_names = "ascii" lets no such account in`},
		`audit = { keep = "1h", most = 1 }`:                  nil,
		`mfa.code_separator = "::"`:                          nil,
		`mfa.grant.from = "tls-client"`:                      nil,
		`mfa.grant.from = "both"`:                            nil,
		`mfa.grant.from = "off"`:                             nil,
		`mfa.grant.tls_client = { absolute="20d" }`:          nil,
		`mfa.grant.tls_client.idle = "31d"`:                  {`w.toml:5: warning: mfa.grant.tls_client.idle = "31d": has no effect: the grant ends after 30d anyway (mfa.grant.tls_client.absolute)`},
		`audit.file = "audit.log"`:                           nil,
		`audit.file = ""`:                                    nil,
		"[[route]]\ndomain = 'a.org'\nupstream = 'default'\n[[route]]\ndomain = 'A.org'\nupstream = 'default'": {`w.toml:8: warning: route[1]: never used, because route[0] is for the same and comes first`},

		// Wrong values.
		`mfa.code_separator = " "`:                               {`w.toml:5: mfa.code_separator = " ": must be "" or up to three of the signs on a US keyboard, no letters, digits or spaces, such as "," or "::"`},
		`mfa.refusal_delay = "15s"`:                              {`w.toml:5: mfa.refusal_delay = "15s": must be shorter than timeouts.login (15s), which ends the attempt`},
		`mfa.grant.ipv4_prefix = 7`:                              {`w.toml:5: mfa.grant.ipv4_prefix = 7: must be from 8 to 32`},
		`mfa.grant.ipv6_prefix = 129`:                            {`w.toml:5: mfa.grant.ipv6_prefix = 129: must be from 16 to 128`},
		`mfa.grant.tls_client.absolute = "0s"`:                   {`w.toml:5: mfa.grant.tls_client.absolute = "0s": must be longer than 0s`},
		`limits.connections_account = -1`:                        {`w.toml:5: limits.connections_account = -1: must be at least 1`},
		`limits.account_penalty = "0s"`:                          {`w.toml:5: limits.account_penalty = "0s": must be longer than 0s`},
		`timeouts.handshake = "0s"`:                              {`w.toml:5: timeouts.handshake = "0s": must be longer than 0s`},
		`timeouts.unauthenticated = "15s"`:                       {`w.toml:5: timeouts.unauthenticated = "15s": must be longer than timeouts.login (15s), or no attempt could take its time`},
		`timeouts.idle = "29m59s"`:                               {`w.toml:5: timeouts.idle = "29m59s": must be at least "30m" (RFC 9051, section 5.4): mail programs rely on it when they wait for new mail`},
		`tls.min_version = "1.1"`:                                {`w.toml:5: tls.min_version = "1.1": must be "1.2" or "1.3"`},
		`store.url = "mysql://db/w"`:                             {`w.toml:5: store.url = "mysql://db/w": must be "sqlite:" and the path of a file, or "memory:"`},
		`store.url = "sqlite:"`:                                  {`w.toml:5: store.url = "sqlite:": must be "sqlite:" and the path of a file, or "memory:"`},
		`store.key_file = ""`:                                    {`w.toml:5: store.key_file = "": must be the path of a file; it is made on first start`},
		`portal.url = "mail.example.org"`:                        {`w.toml:5: portal.url = "mail.example.org": must begin with https:// and a host, such as "https://mail.example.org/", or be ""`},
		`metrics.address = "[::]:993"`:                           {`w.toml:5: metrics.address = "[::]:993": listener[0].address listens there already: choose another port, or remove one of them`},
		"[[route]]\naccount = 'a b'\nupstream = 'default'":       {`w.toml:6: route[0].account = "a b": must be an account of letters, digits and ._-+@, such as "alice@example.org"`},
		"[[route]]\ndomain = 'a.org'":                            {`w.toml:5: route[0].upstream is missing: the name of an [[upstream]]`},
		"[[route]]\ndomain = '-a.org'\nupstream = 'default'":     {`w.toml:6: route[0].domain = "-a.org": must be a domain, such as "example.org"`},
		"[[route]]\ndomain = 'a.org'\nupstream = 'elsewhere'":    {`w.toml:7: route[0].upstream = "elsewhere": there is no such upstream: must be one of "default"`},
		"[[route]]\nupstream = 'default'\n[log]\nlevel = \"no\"": {`w.toml:5: route[0]: must have either domain or account, and not both`, `w.toml:8: log.level = "no": must be "debug", "info", "warn" or "error"`},

		`account_names = "latin1"`: {`w.toml:5: account_names = "latin1": must be "ascii" or "unicode"`},
		`mfa.grant.from = "tls"`:   {`w.toml:5: mfa.grant.from = "tls": must be "network", "tls-client", "both" or "off"`},
		`audit.keep = "0s"`:        {`w.toml:5: audit.keep = "0s": must be longer than 0s`},
		`audit.most = 0`:           {`w.toml:5: audit.most = 0: must be at least 1`},

		// Not in this version.
		`tls.client_ca = "ca.pem"`:                 {`w.toml:5: tls.client_ca: this version can't do that yet: remove it`},
		`shared.redis = "redis://cache"`:           {`w.toml:5: shared.redis: this version can't do that yet: remove it; each machine limits by itself`},
		`store.url = "postgres://db/w"`:            {`w.toml:5: store.url: this version can't do that yet: use "sqlite:" and the path of a file`},
		`portal.address = ":443"`:                  {`w.toml:5: portal.address: this version can't do that yet: remove it`},
		`portal.url = "https://mail.example.org/"`: nil,
	} {
		if diff := cmp.Diff(want, said(t, folder(t), required+text)); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
}

func TestCheckListeners(t *testing.T) {
	for listeners, want := range map[string][]string{
		`{ address = "0.0.0.0:993" }, { address = "0.0.0.0:143", tls = "starttls" }`:         nil,
		`{ address = "127.0.0.1:0" }, { address = "127.0.0.1:0" }`:                           nil,
		`{ address = "127.0.0.1:993" }, { address = "[::1]:993" }`:                           nil,
		`{ address = "127.0.0.1:993" }, { address = "[::ffff:127.0.0.1]:993" }`:              {`w.toml:3: listener[1].address = "[::ffff:127.0.0.1]:993": listener[0].address listens there already: choose another port, or remove one of them`},
		`{ address = "127.0.0.1:993" }, { address = ":993" }`:                                {`w.toml:3: listener[1].address = ":993": listener[0].address listens there already: choose another port, or remove one of them`},
		`{ address = "127.0.0.1:65536" }`:                                                    {`w.toml:3: listener[0].address = "127.0.0.1:65536": must be a host and a port as a number, such as "127.0.0.1:143", "[::1]:143" or "imap.example.org:993"`},
		`{ address = "127.0.0.1:993", trusted_proxies = ["10.0.0.0/8", "2001:db8::1/128"] }`: nil,
		`{ address = "127.0.0.1:993", trusted_proxies = ["10.0.0.0/8", "0.0.0.0/0"] }`:       {`w.toml:3: warning: listener[0].trusted_proxies = "0.0.0.0/0": whoever connects from there can claim any address: name your proxies' own addresses`},
		`{ address = "a_b:1" }`: {
			`w.toml:3: listener[0].address = "a_b:1": must be a host and a port as a number, such as "127.0.0.1:143", "[::1]:143" or "imap.example.org:993"`,
		},
	} {
		text := `hostname = "mail.example.org"
tls.certificates = [{ cert = "fullchain.pem", key = "privkey.pem" }]
listener = [` + listeners + `]
upstream = [{ address = "127.0.0.1:1143", tls = "none" }]`
		if diff := cmp.Diff(want, said(t, folder(t), text)); diff != "" {
			t.Errorf("%s\n%s", listeners, diff)
		}
	}
}

func TestCheckUpstreams(t *testing.T) {
	for upstreams, want := range map[string][]string{
		`{ address = "localhost:143", tls = "none" }`:                                   nil,
		`{ address = "[::1]:143", tls = "none" }`:                                       nil,
		`{ address = "imap.example.org:143" }`:                                          nil,
		`{ address = "10.1.2.3:143", server_name = "imap.example.org" }`:                nil,
		`{ address = "10.1.2.3:143", ca = "fullchain.pem", server_name = "a" }`:         nil,
		`{ address = "10.1.2.3:143" }`:                                                  {`w.toml:3: warning: upstream[0].address = "10.1.2.3:143": its certificate must be for the address 10.1.2.3, which is rare: say in server_name which name it has`},
		`{ address = "10.1.2.3:143", tls = "none" }`:                                    {`w.toml:3: warning: upstream[0].tls = "none": every password travels to 10.1.2.3:143 in the clear, for all on that network to read; "starttls" hides it`},
		`{ address = "192.0.2.1:143", tls = "none" }`:                                   {`w.toml:3: upstream[0].tls = "none": 192.0.2.1:143 is neither on this machine nor a private address, and passwords would travel in the clear: use "starttls" or "implicit", or say allow_plaintext = true`},
		`{ address = "imap.lan:143", tls = "none" }`:                                    {`w.toml:3: upstream[0].tls = "none": imap.lan:143 is neither on this machine nor a private address, and passwords would travel in the clear: use "starttls" or "implicit", or say allow_plaintext = true`},
		`{ address = "imap.lan:143", tls = "none", allow_plaintext = true }`:            {`w.toml:3: warning: upstream[0].allow_plaintext = true: every password travels to imap.lan:143 in the clear`},
		`{ address = "imap.lan:143", allow_plaintext = true }`:                          {`w.toml:3: warning: upstream[0].allow_plaintext = true: isn't needed here, and would let a later mistake pass: remove it`},
		`{ address = "127.0.0.1:993", tls = "none" }`:                                   {`w.toml:3: upstream[0].address = "127.0.0.1:993": that is our own listener[0] (0.0.0.0:993): let the IMAP server listen on another port, and name that`},
		`{ address = ":143" }`:                                                          {`w.toml:3: upstream[0].address = ":143": must be a host and a port as a number, such as "127.0.0.1:143", "[::1]:143" or "imap.example.org:993"`},
		`{ address = "imap.lan:0" }`:                                                    {`w.toml:3: upstream[0].address = "imap.lan:0": must be a host and a port as a number, such as "127.0.0.1:143", "[::1]:143" or "imap.example.org:993"`},
		`{ address = "imap.lan:143", login = "master", master = { user = "m" } }`:       {`w.toml:3: upstream[0].master.password_file is missing: a file whose first line is the master user's password, mode 0600`},
		`{ address = "imap.lan:143", master = { user = "m" } }`:                         {`w.toml:3: warning: upstream[0].master.user = "m": has no effect with login = "replay": say login = "master", or remove it`},
		`{ address = "imap.lan:143", forward = "proxy-v2" }`:                            nil,
		`{ address = "imap.lan:143", forward = "xclient", login = "", tls = "always" }`: {`w.toml:3: upstream[0].tls = "always": must be "starttls", "implicit" or "none"`, `w.toml:3: upstream[0].login = "": must be "replay" or "master"`, `w.toml:3: upstream[0].forward = "xclient": must be "id", "proxy-v2" or "off"`},
		`{ address = "imap.lan:143", server_name = "a b" }`:                             {`w.toml:3: upstream[0].server_name = "a b": must be the name in the upstream's certificate, such as "imap.example.org"`},
		`{ address = "imap.lan:143", ca = "nowhere.pem" }`:                              {`w.toml:3: upstream[0].ca = "nowhere.pem": can't be read: no such file or directory (relative paths start at the configuration file's folder)`},
		`{ name = "a", address = "a.lan:143" }, { name = "a", address = "b.lan:143" }`:  {`w.toml:3: upstream[1].name = "a": upstream[0] has that name already: give each its own`},
		`{ name = "", address = "a.lan:143" }`:                                          {`w.toml:3: upstream[0].name = "": must not be empty: routes, logs and metrics use it`},
	} {
		text := `hostname = "mail.example.org"
tls.certificates = [{ cert = "fullchain.pem", key = "privkey.pem" }]
upstream = [` + upstreams + `]
listener = [{ address = "0.0.0.0:993" }]`
		if diff := cmp.Diff(want, said(t, folder(t), text)); diff != "" {
			t.Errorf("%s\n%s", upstreams, diff)
		}
	}
}

func TestCheckCertificates(t *testing.T) {
	dir := folder(t)
	now := time.Now()
	past := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	future := time.Date(2999, 1, 2, 3, 4, 5, 0, time.UTC)
	writePair(t, dir, "old.pem", "old.key", "mail.example.org", past.Add(-time.Hour), past)
	writePair(t, dir, "new.pem", "new.key", "mail.example.org", future, future.Add(time.Hour))
	writePair(t, dir, "other.pem", "other.key", "other.example.org", now.Add(-time.Hour), now.Add(time.Hour))
	writePair(t, dir, "open.pem", "open.key", "mail.example.org", now.Add(-time.Hour), now.Add(time.Hour))
	if err := os.Chmod(filepath.Join(dir, "open.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "empty.pem"), "")
	write(t, filepath.Join(dir, "pkcs8.key"), "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n")
	write(t, filepath.Join(dir, "openssl.key"), "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMAA=\n-----END EC PRIVATE KEY-----\n")

	for certificates, want := range map[string][]string{
		`{ cert = "fullchain.pem", key = "privkey.pem" }`:                                    nil,
		`{ cert = "other.pem", key = "other.key" }, { cert = "open.pem", key = "open.key" }`: {`w.toml:2: warning: tls.certificates[1].key = "open.key": everybody on this machine may use this private key: chmod o= open.key`},
		`{ cert = "other.pem", key = "other.key" }`:                                          {`w.toml:2: warning: tls.certificates: none is for the hostname "mail.example.org": mail programs that connect to that name will warn their users`},
		`{ cert = "old.pem", key = "old.key" }`:                                              {`w.toml:2: warning: tls.certificates[0].cert = "old.pem": expired on 2020-01-02 03:04:05 UTC: renew it, mail programs will refuse it`},
		`{ cert = "new.pem", key = "new.key" }`:                                              {`w.toml:2: warning: tls.certificates[0].cert = "new.pem": isn't valid before 2999-01-02 03:04:05 UTC: is this machine's clock right?`},
		`{ cert = "old.pem", key = "new.key" }`:                                              {`w.toml:2: tls.certificates[0].cert = "old.pem": doesn't work with new.key: private key does not match public key`},
		`{ cert = "old.pem", key = "pkcs8.key" }`:                                            {`w.toml:2: tls.certificates[0].key = "pkcs8.key": it is encrypted, remove the passphrase: openssl pkey -in OLD -out NEW`},
		`{ cert = "old.pem", key = "openssl.key" }`:                                          {`w.toml:2: tls.certificates[0].key = "openssl.key": it is encrypted, remove the passphrase: openssl pkey -in OLD -out NEW`},
		`{ cert = "empty.pem", key = "new.key" }`:                                            {`w.toml:2: tls.certificates[0].cert = "empty.pem": doesn't work with new.key: failed to find any PEM data in certificate input`},
		`{ cert = ".", key = "nowhere.key" }`: {
			`w.toml:2: tls.certificates[0].cert = ".": can't be read: is a directory (relative paths start at the configuration file's folder)`,
			`w.toml:2: tls.certificates[0].key = "nowhere.key": can't be read: no such file or directory (relative paths start at the configuration file's folder)`,
		},
	} {
		text := `hostname = "mail.example.org"
tls.certificates = [` + certificates + `]
listener = [{ address = "127.0.0.1:993" }]
upstream = [{ address = "127.0.0.1:143", tls = "none" }]`
		got := said(t, dir, text)
		for i := range got {
			got[i] = strings.ReplaceAll(got[i], strconv.Quote(dir), `"."`) // the folder itself
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\n%s", certificates, diff)
		}
	}
}

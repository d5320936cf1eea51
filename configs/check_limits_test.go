package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each text stands below [limits], from line 6 on.
func TestCheckLimits(t *testing.T) {
	const signal = `must be "address-limit", "range-limit", "network-accounts", "network-unknown", "account-limit", "account-codes", "familiar-limit", "account-networks", "password-sprayed", "password-common", "strangers-limit", "unproved", "machine-alarm", "decoy-account" or "tarpit"`
	const share = "must be from 10 to 50, or 0 for limits that don't grow"
	const wide = "guessing has no limits from anywhere in it: name your own hosts and offices"
	const forged = "whoever connects from there can claim any address: name your webmail hosts' own addresses"
	const everybody = "every account is a decoy then, and whoever tries to sign in is banned: name accounts that nobody has"
	for text, want := range map[string][]string{
		"": nil,

		`observe = []`: nil,
		`observe = ["address-limit", "range-limit", "network-accounts", "network-unknown", "account-limit", "account-codes", "familiar-limit", "account-networks"]`: nil,
		`observe = ["password-sprayed", "password-common", "strangers-limit", "unproved", "machine-alarm", "decoy-account", "tarpit"]`:                              nil,
		"observe = [\n'unproved',\n'banned',\n'']": {`w.toml:8: limits.observe[1] = "banned": ` + signal, `w.toml:9: limits.observe[2] = "": ` + signal},

		`nat_share = 0`:  nil,
		`nat_share = 10`: nil,
		`nat_share = 50`: nil,
		`nat_share = 9`:  {`w.toml:6: limits.nat_share = 9: ` + share},
		`nat_share = 51`: {`w.toml:6: limits.nat_share = 51: ` + share},
		`nat_share = -1`: {`w.toml:6: limits.nat_share = -1: ` + share},

		"address_per_minute = 0\naddress_per_day = 0":   {`w.toml:6: limits.address_per_minute = 0: must be at least 1`, `w.toml:7: limits.address_per_day = 0: must be at least 1`},
		`address_per_day = 2147483648`:                  {`w.toml:6: limits.address_per_day = 2147483648: must be from 1 to 2147483647`},
		"network_accounts = 0\nnetwork_unknown = 101":   {`w.toml:6: limits.network_accounts = 0: must be from 1 to 100`, `w.toml:7: limits.network_unknown = 101: must be from 1 to 100`},
		"network_accounts = 100\nnetwork_unknown = 1":   nil,
		`account_failures = 0`:                          {`w.toml:6: limits.account_failures = 0: must be at least 1`},
		`account_codes = 0`:                             {`w.toml:6: limits.account_codes = 0: must be at least 1`},
		`familiar_per_day = 0`:                          {`w.toml:6: limits.familiar_per_day = 0: must be at least 1`},
		`account_networks = 17`:                         {`w.toml:6: limits.account_networks = 17: must be from 1 to 16`},
		`account_network_failures = 0`:                  {`w.toml:6: limits.account_network_failures = 0: must be at least 1`},
		"password_per_hour = 1\npassword_per_day = 33":  {`w.toml:6: limits.password_per_hour = 1: must be from 2 to 32`, `w.toml:7: limits.password_per_day = 33: must be from 2 to 32`},
		"unproved_per_hour = 0\nstrangers_per_hour = 0": nil,
		`unproved_per_hour = -1`:                        {`w.toml:6: limits.unproved_per_hour = -1: must be at least 0`},
		`strangers_per_hour = -1`:                       {`w.toml:6: limits.strangers_per_hour = -1: must be at least 0`},
		`alarm_share = 0`:                               {`w.toml:6: limits.alarm_share = 0: must be from 1 to 100`},
		`alarm_share = 101`:                             {`w.toml:6: limits.alarm_share = 101: must be from 1 to 100`},
		`tarpit_places = 0`:                             {`w.toml:6: limits.tarpit_places = 0: must be at least 1`},

		`ban = "0s"`:                             {`w.toml:6: limits.ban = "0s": must be longer than 0s`},
		`ban = "3h"`:                             nil,
		`ban = "3h1s"`:                           {`w.toml:6: limits.ban = "3h1s": must be at most limits.longest_ban (3h), where the doubling ends`},
		`longest_ban = "9m"`:                     {`w.toml:6: limits.longest_ban = "9m": must be at least limits.ban (10m), the first one`},
		"ban = '1d'\nlongest_ban = '1d'":         nil,
		`longest_ban = "1d1s"`:                   {`w.toml:6: limits.longest_ban = "1d1s": must be at most "1d"; 'imapwarden ban add' is for longer ones, by hand`},
		"account_penalty = '0s'\nban = \"soon\"": {`w.toml:6: limits.account_penalty = "0s": must be longer than 0s`, `w.toml:7: limits.ban = "soon": must be a duration in quotes, such as "90s", "12h" or "1d12h"`},

		`tarpit = ["5s"]`: nil,
		`tarpit = ["1s", "2s", "3s", "4s", "5s", "6s", "7s", "15s"]`:       nil,
		`tarpit = ["1s", "2s", "3s", "4s", "5s", "6s", "7s", "8s", "15s"]`: {`w.toml:6: limits.tarpit has 9 in it: must have at most 8`},
		`tarpit = []`: {`w.toml:6: limits.tarpit = []: must have at least one in it; with "tarpit" in limits.observe it delays nobody`},
		"tarpit = [\n'0s',\n'4s',\n'4s',\n'3s',\n'15s500ms']": {
			`w.toml:7: limits.tarpit[0] = "0s": must be longer than 0s, for they grow`,
			`w.toml:9: limits.tarpit[2] = "4s": must be longer than 4s, for they grow`,
			`w.toml:10: limits.tarpit[3] = "3s": must be longer than 4s, for they grow`,
			`w.toml:11: limits.tarpit[4] = "15s500ms": must be at most timeouts.login (15s), which is all that mail programs wait`,
		},
		`tarpit = ["2s", "long", "8s"]`:                          {`w.toml:6: limits.tarpit[1] = "long": must be a duration in quotes, such as "90s", "12h" or "1d12h"`},
		"tarpit = ['2s', '12s']\n[timeouts]\nlogin = '10s'":      {`w.toml:6: limits.tarpit[1] = "12s": must be at most timeouts.login (10s), which is all that mail programs wait`},
		"[timeouts]\nlogin = '10s'":                              nil, // it isn't the admin's own
		"decoys = ['backup', 'Test*', 'trap@example.org']":       nil,
		"decoys = [\n'',\n'a b']":                                {`w.toml:7: limits.decoys[0] = "": must be an account of letters, digits and ._-+@, with * for any text, such as "*@example.org"`, `w.toml:8: limits.decoys[1] = "a b": must be an account of letters, digits and ._-+@, with * for any text, such as "*@example.org"`},
		"decoys = ['trap', '*', '**@*']":                         {`w.toml:6: warning: limits.decoys[1] = "*": ` + everybody, `w.toml:6: warning: limits.decoys[2] = "**@*": ` + everybody},
		"decoys = ['fälle']":                                     {`w.toml:6: warning: limits.decoys[0] = "fälle": never used: account_names = "ascii" lets no such account in`},
		"decoys = ['trap']\n[rule]":                              {`w.toml:7: rule is a list of tables: each begins with [[rule]], in two brackets`},
		`trusted = ["10.0.0.0/8", "2001:db8::/32", "fc00::/7"]`:  nil,
		`trusted = ["::ffff:10.0.0.0/104", "192.0.2.1/32"]`:      nil,
		"trusted = [\n'0.0.0.0/0',\n'::/0',\n'10.0.0.0/7']":      {`w.toml:7: warning: limits.trusted[0] = "0.0.0.0/0": ` + wide, `w.toml:8: warning: limits.trusted[1] = "::/0": ` + wide, `w.toml:9: warning: limits.trusted[2] = "10.0.0.0/7": ` + wide},
		`trusted = ["2001:db8::/31", "::ffff:0.0.0.0/96"]`:       {`w.toml:6: warning: limits.trusted[0] = "2001:db8::/31": ` + wide, `w.toml:6: warning: limits.trusted[1] = "0.0.0.0/0": ` + wide},
		`webmail = ["192.0.2.1/32", "2001:db8::1/128"]`:          nil,
		`webmail = ["0.0.0.0/0", "fc00::/6"]`:                    {`w.toml:6: warning: limits.webmail[0] = "0.0.0.0/0": ` + forged, `w.toml:6: warning: limits.webmail[1] = "fc00::/6": ` + forged},
		"webmail = ['10.0.0.1/32']\ntrusted = ['10.0.0.0/24']\n": nil,
	} {
		if diff := cmp.Diff(want, said(t, folder(t), required+"[limits]\n"+text)); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
}

// With a default domain there are no bare names.
func TestCheckDecoysWithDefaultDomain(t *testing.T) {
	got := said(t, folder(t), required+"default_domain = 'example.org'\nlimits.decoys = ['trap', 'trap@example.org']")
	want := []string{`w.toml:6: warning: limits.decoys[0] = "trap": never used, because default_domain completes bare names; write "trap@example.org"`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCheckPasswordsAndGeo(t *testing.T) {
	const away = `(relative paths start at the configuration file's folder)`
	dir := folder(t)
	for _, name := range []string{"list", "empty", "country.mmdb", "asn.mmdb"} {
		write(t, filepath.Join(dir, name), strings.TrimPrefix(name, "empty"))
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]string{
		`passwords.file = ""`:                           nil,
		`passwords.file = "list"`:                       nil,
		`passwords.file = "empty"`:                      nil,
		`passwords.file = "nowhere"`:                    {`w.toml:5: passwords.file = "nowhere": can't be read: no such file or directory ` + away},
		`passwords.file = "folder"`:                     {`w.toml:5: passwords.file = "folder": must be a regular file`},
		`passwords.action = "refuse"`:                   nil,
		`passwords.action = "report"`:                   nil,
		`passwords.action = "demand"`:                   {`w.toml:5: passwords.action = "demand": must be "fresh-code", "refuse" or "report"`},
		`geo.absent = "refuse"`:                         nil,
		`geo.absent = "deny"`:                           {`w.toml:5: geo.absent = "deny": must be "skip" or "refuse"`},
		`geo.countries = "nowhere"`:                     {`w.toml:5: warning: geo.countries = "nowhere": there is no such file yet: until there is, rules with countries are skipped (geo.absent)`},
		`geo.countries = ""`:                            nil,
		`geo.owners = "folder"`:                         {`w.toml:5: geo.owners = "folder": must be a regular file`},
		"geo.absent = 'refuse'\ngeo.owners = 'nowhere'": {`w.toml:6: warning: geo.owners = "nowhere": there is no such file yet: until there is, rules with owners refuse all that their other matchers fit (geo.absent)`},
	} {
		if diff := cmp.Diff(want, said(t, dir, required+text)); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
}

func TestCheckAlerts(t *testing.T) {
	const (
		must  = `must begin with https:// and a host, such as "https://alerts.example.org/imapwarden", or be ""`
		plain = `alerts name accounts and addresses: use https://; http:// is for this machine alone`
		user  = `must have no user name and password in it, which logs would show: the receiver knows us by the signature that alerts.key_file makes`
	)
	dir := folder(t)
	write(t, filepath.Join(dir, "good.key"), "")
	write(t, filepath.Join(dir, "shared.key"), "")
	if err := os.Chmod(filepath.Join(dir, "shared.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]string{
		`webhook = ""`: nil,
		`webhook = "https://alerts.example.org/x?y"`:          nil,
		`webhook = "http://127.0.0.1:8080/"`:                  nil,
		`webhook = "http://[::1]:8080/"`:                      nil,
		`webhook = "http://localhost/"`:                       nil,
		`webhook = "http://192.0.2.1/"`:                       {`w.toml:6: alerts.webhook = "http://192.0.2.1/": ` + plain},
		`webhook = "http://localhost.example.org/"`:           {`w.toml:6: alerts.webhook = "http://localhost.example.org/": ` + plain},
		`webhook = "alerts.example.org"`:                      {`w.toml:6: alerts.webhook = "alerts.example.org": ` + must},
		`webhook = "https:///x"`:                              {`w.toml:6: alerts.webhook = "https:///x": ` + must},
		`webhook = "https://:443/x"`:                          {`w.toml:6: alerts.webhook = "https://:443/x": ` + must},
		`webhook = "ftp://example.org/x"`:                     {`w.toml:6: alerts.webhook = "ftp://example.org/x": ` + must},
		`webhook = "https://a b/"`:                            {`w.toml:6: alerts.webhook = "https://a b/": ` + must},
		`webhook = "https://warden:hunter2@a.org/"`:           {`w.toml:6: alerts.webhook = "https:***@a.org/": ` + user},
		`webhook = "https://warden@a.org/"`:                   {`w.toml:6: alerts.webhook = "https:***@a.org/": ` + user},
		`key_file = "shared.key"`:                             nil, // it signs nothing
		"webhook = 'https://a.org/'\nkey_file = 'good.key'":   nil,
		"webhook = 'https://a.org/'\nkey_file = 'new.key'":    nil,
		"webhook = 'https://a.org/'\nkey_file = ''":           {`w.toml:7: alerts.key_file = "": must be the path of a file; it is made on first start`},
		"webhook = 'https://a.org/'\nkey_file = 'shared.key'": {`w.toml:7: alerts.key_file = "shared.key": others than its owner may read it (mode 0644), and sign alerts of their own: chmod 600 shared.key`},
	} {
		if diff := cmp.Diff(want, said(t, dir, required+"[alerts]\n"+text)); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
}

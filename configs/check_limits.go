package configs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// signals are those that limits.observe may name. The same list is policy.Signals, and a
// test of cmd/imapwarden holds the two equal: this package imports nothing of ours.
var signals = []string{
	"address-limit", "range-limit", "network-accounts", "network-unknown",
	"account-limit", "account-codes", "familiar-limit", "account-networks",
	"password-sprayed", "password-common", "strangers-limit", "unproved",
	"machine-alarm", "decoy-account", "tarpit",
}

func (c *checker) limits() {
	l := c.Limits
	c.oneOf("limits.mode", l.Mode, "enforce", "observe")
	if l.Mode == "observe" {
		c.warn("limits.mode", l.Mode, `guessing is recorded but not stopped; "enforce" stops it`)
	}
	for i, signal := range l.Observe {
		c.oneOf(fmt.Sprintf("limits.observe[%d]", i), signal, signals...)
	}
	c.counts()
	c.positive("limits.account_penalty", l.AccountPenalty)
	c.bans()
	c.tarpit()
	c.decoys()
	for i, p := range l.Trusted {
		if isWide(p) {
			c.warn(fmt.Sprintf("limits.trusted[%d]", i), p, "guessing has no limits from anywhere in it: name your own hosts and offices")
		}
	}
	for i, p := range l.Webmail {
		if isWide(p) {
			c.warn(fmt.Sprintf("limits.webmail[%d]", i), p, "whoever connects from there can claim any address: name your webmail hosts' own addresses")
		}
	}
}

// counts refuses those that mean nothing: too low ones, and those that policy's memory,
// which is bounded for each network, account and password, would never reach.
func (c *checker) counts() {
	const endless = math.MaxInt32
	l := c.Limits
	for _, count := range []struct {
		key             string
		n, lowest, most int
	}{
		{"address_per_minute", l.AddressPerMinute, 1, endless},
		{"address_per_day", l.AddressPerDay, 1, endless},
		{"network_accounts", l.NetworkAccounts, 1, 100},
		{"network_unknown", l.NetworkUnknown, 1, 100},
		{"account_failures", l.AccountFailures, 1, endless},
		{"account_codes", l.AccountCodes, 1, endless},
		{"familiar_per_day", l.FamiliarPerDay, 1, endless},
		{"account_networks", l.AccountNetworks, 1, 16},
		{"account_network_failures", l.AccountNetworkFailures, 1, endless},
		{"password_per_hour", l.PasswordPerHour, 2, 32}, // one account's slip is no spraying
		{"password_per_day", l.PasswordPerDay, 2, 32},
		{"unproved_per_hour", l.UnprovedPerHour, 0, endless},
		{"strangers_per_hour", l.StrangersPerHour, 0, endless},
		{"alarm_share", l.AlarmShare, 1, 100},
		{"tarpit_places", l.TarpitPlaces, 1, endless},
		{"refusals", l.Refusals, 1, endless},
		{"connections_before_login", l.ConnectionsBeforeLogin, 1, endless},
		{"total_before_login", l.TotalBeforeLogin, 1, endless},
		{"connections_account_address", l.PerAccountAndAddress, 1, endless},
		{"connections_account", l.PerAccount, 1, endless},
	} {
		if count.most == endless && count.n < count.lowest {
			c.refuse("limits."+count.key, count.n, "must be at least %d", count.lowest)
		} else {
			c.within("limits."+count.key, count.n, count.lowest, count.most)
		}
	}
	if l.NATShare != 0 && (l.NATShare < 10 || l.NATShare > 50) {
		c.refuse("limits.nat_share", l.NATShare, "must be from 10 to 50, or 0 for limits that don't grow")
	}
}

// bans that strangers bring about end within a day, for addresses change hands.
func (c *checker) bans() {
	first, longest := c.Limits.Ban, c.Limits.LongestBan
	c.positive("limits.ban", first)
	c.positive("limits.longest_ban", longest)
	switch {
	case longest.D() > day:
		c.refuse("limits.longest_ban", longest, `must be at most "1d"; 'imapwarden ban add' is for longer ones, by hand`)
	case first > longest && c.place["limits.longest_ban"] > 0:
		c.refuse("limits.longest_ban", longest, "must be at least limits.ban (%s), the first one", first)
	case first > longest:
		c.refuse("limits.ban", first, "must be at most limits.longest_ban (%s), where the doubling ends", longest)
	}
}

// tarpit judges the steps, if there are any but the defaults, which may be longer than a
// timeouts.login that somebody has shortened.
func (c *checker) tarpit() {
	const key = "limits.tarpit"
	steps := c.Limits.Tarpit
	switch {
	case c.place[key] == 0:
		return
	case len(steps) == 0:
		c.add(key, key+" = []: must have at least one in it; with \"tarpit\" in limits.observe it delays nobody", false)
	case len(steps) > 8:
		c.add(key, fmt.Sprintf("%s has %d in it: must have at most 8", key, len(steps)), false)
	}
	var last Duration
	for i, step := range steps {
		key := fmt.Sprintf("%s[%d]", key, i)
		switch {
		case step > c.Timeouts.Login:
			c.refuse(key, step, "must be at most timeouts.login (%s), which is all that mail programs wait", c.Timeouts.Login)
		case step <= last:
			c.refuse(key, step, "must be longer than %s, for they grow", last)
		}
		last = max(last, step)
	}
}

func (c *checker) decoys() {
	for i, pattern := range c.Limits.Decoys {
		key := fmt.Sprintf("limits.decoys[%d]", i)
		if name := strings.Trim(pattern, "*"); pattern != "" && (name == "" || name == "@") {
			c.warn(key, pattern, "every account is a decoy then, and whoever tries to sign in is banned: name accounts that nobody has")
			continue
		}
		c.pattern(key, pattern)
	}
}

// isWide says if a network is wider than those that one organization has.
func isWide(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() < 8
	}
	return p.Bits() < 32 && !(p.Addr().IsPrivate() && p.Bits() >= 7) // fc00::/7 is everybody's own (RFC 4193)
}

func (c *checker) passwords() {
	c.oneOf("passwords.action", c.Passwords.Action, "fresh-code", "refuse", "report")
	if c.Passwords.File != "" {
		c.readable("passwords.file", c.Passwords.File)
	}
}

func (c *checker) geo() {
	c.oneOf("geo.absent", c.Geo.Absent, "skip", "refuse")
	for _, file := range []struct {
		key, path, matcher string
		needed             func(Rule) bool
	}{
		{"geo.countries", c.Geo.Countries, "countries", func(r Rule) bool { return len(r.Countries) > 0 }},
		{"geo.owners", c.Geo.Owners, "owners", func(r Rule) bool { return len(r.Owners) > 0 }},
	} {
		if file.path == "" {
			continue
		}
		if _, err := os.Stat(file.path); errors.Is(err, fs.ErrNotExist) {
			c.warn(file.key, file.path, "there is no such file yet: until there is, rules with %s %s", file.matcher, c.without(file.needed))
			continue
		}
		c.readable(file.key, file.path)
	}
}

// without says what becomes of rules while the file isn't there that they need.
func (c *checker) without(needed func(Rule) bool) string {
	if c.Geo.Absent == "refuse" {
		return "refuse all that their other matchers fit (geo.absent)"
	}
	var open []string
	for i, r := range c.Rules {
		if needed(r) && r.Action == "deny" {
			open = append(open, strconv.Quote(r.Title(i)))
		}
	}
	if len(open) == 0 {
		return "are skipped (geo.absent)"
	}
	return fmt.Sprintf(`are skipped (geo.absent), and whom those with action = "deny" should refuse may come in (%s); geo.absent = "refuse" keeps them out`,
		strings.Join(open, ", "))
}

// readable refuses a file that can't be read. Such files may have gigabytes: one octet of
// it says enough.
func (c *checker) readable(key, path string) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() { // a pipe would make us wait
		c.refuse(key, path, "must be a regular file")
		return
	}
	file, err := os.Open(path)
	if err == nil {
		defer file.Close()
		_, err = file.Read(make([]byte, 1))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.refuse(key, path, "%v", unreadable(err))
	}
}

func (c *checker) alerts() {
	webhook := c.Alerts.Webhook
	if webhook == "" {
		return
	}
	u, err := url.Parse(webhook)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		c.refuse("alerts.webhook", webhook, `must begin with https:// and a host, such as "https://alerts.example.org/imapwarden", or be ""`)
	case u.User != nil:
		c.refuse("alerts.webhook", webhook, "must have no user name and password in it, which logs would show: the receiver knows us by the signature that alerts.key_file makes")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		c.refuse("alerts.webhook", webhook, "alerts name accounts and addresses: use https://; http:// is for this machine alone")
	}
	if c.Alerts.KeyFile == "" {
		c.refuse("alerts.key_file", c.Alerts.KeyFile, "must be the path of a file; it is made on first start")
		return
	}
	c.secret("alerts.key_file", c.Alerts.KeyFile, "sign alerts of their own")
}

// secret refuses a key's file that others than its owner may read. What is what they could
// do with it.
func (c *checker) secret(key, path, what string) {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		c.refuse(key, path, "others than its owner may read it (mode %04o), and %s: chmod 600 %s", info.Mode().Perm(), what, path)
	}
}

package configs

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// accountPattern is an account's name with stars in it; at most one @, like a name.
var accountPattern = regexp.MustCompile(`^[\p{L}\p{N}._+*-]*(@[\p{L}\p{N}._+*-]*)?$`)

func (c *checker) rules() {
	c.geoFiles()
	named := map[string]string{}
	last := "" // the rule that fits everything
	for i, r := range c.Rules {
		key := fmt.Sprintf("rule[%d]", i)
		c.oneOf(key+".action", r.Action, "allow", "deny")
		if r.SecondFactor != "" {
			c.oneOf(key+".second_factor", r.SecondFactor, "required", "optional", "observe")
		}
		if r.MaxSessions < 0 {
			c.refuse(key+".max_sessions", r.MaxSessions, "must be at least 1, or 0 for what limits say")
		}
		c.ruleName(key, r, named)
		c.matchers(key, r)
		if r.Action == "deny" {
			c.denied(key, r)
		} else {
			c.softened(key, r)
		}
		if last != "" {
			c.add(key, fmt.Sprintf("%s: never used, because %s fits everything and comes first", key, last), true)
		} else if c.fitsAll(key, r) {
			last = key
		}
	}
}

func (c *checker) ruleName(key string, r Rule, named map[string]string) {
	switch first, taken := named[r.Name]; {
	case strings.ContainsFunc(r.Name, unicode.IsControl):
		c.refuse(key+".name", r.Name, "must not have control characters: it stands in audit events")
	case taken:
		c.refuse(key+".name", r.Name, "%s has that name already: give each its own", first)
	case r.Name != "":
		named[r.Name] = key
	}
}

// matchers judges what a rule is for.
func (c *checker) matchers(key string, r Rule) {
	for _, list := range []struct {
		key string
		n   int
	}{
		{key + ".accounts", len(r.Accounts)},
		{key + ".networks", len(r.Networks)},
		{key + ".network_files", len(r.NetworkFiles)},
		{key + ".countries", len(r.Countries)},
		{key + ".owners", len(r.Owners)},
		{key + ".tls", len(r.TLS)},
		{key + ".programs", len(r.Programs)},
		{key + ".weekdays", len(r.Weekdays)},
	} {
		if c.place[list.key] > 0 && list.n == 0 {
			c.add(list.key, list.key+" = []: must have at least one in it: leave the key out to fit everything", false)
		}
	}
	for j, pattern := range r.Accounts {
		c.pattern(fmt.Sprintf("%s.accounts[%d]", key, j), pattern)
	}
	for j, path := range r.NetworkFiles {
		c.networkFile(fmt.Sprintf("%s.network_files[%d]", key, j), path)
	}
	c.places(key, r)
	c.versions(key, r)
	if since, until := r.Period(); !until.IsZero() && !since.Before(until) {
		c.warn(key+".until", r.Until, "never used, because it isn't after since (%s)", r.Since)
	}
}

// versions judges the versions of TLS that a rule is for.
func (c *checker) versions(key string, r Rule) {
	for j, version := range r.TLS {
		key := fmt.Sprintf("%s.tls[%d]", key, j)
		c.oneOf(key, version, "1.2", "1.3")
		if version == "1.2" && c.TLS.MinVersion == "1.3" {
			c.warn(key, version, `never used: tls.min_version = "1.3" lets no such client in`)
		}
	}
}

func (c *checker) pattern(key, pattern string) {
	switch {
	case pattern == "" || !accountPattern.MatchString(pattern):
		c.refuse(key, pattern, `must be an account of letters, digits and ._-+@, with * for any text, such as "*@example.org"`)
	case c.AccountNames == "ascii" && strings.ContainsFunc(pattern, func(r rune) bool { return r > unicode.MaxASCII }):
		c.warn(key, pattern, `never used: account_names = "ascii" lets no such account in`)
	case c.DefaultDomain != "" && !strings.Contains(pattern, "@") && !strings.HasSuffix(pattern, "*"):
		c.warn(key, pattern, `never used, because default_domain completes bare names; write %q`, pattern+"@"+c.DefaultDomain)
	}
}

// denied warns of what a rule says about sessions that it doesn't let in.
func (c *checker) denied(key string, r Rule) {
	const without = `has no effect together with action = "deny": remove one of them`
	if r.SecondFactor != "" {
		c.warn(key+".second_factor", r.SecondFactor, without)
	}
	if r.ReadOnly {
		c.warn(key+".read_only", r.ReadOnly, without)
	}
	if r.MaxSessions > 0 {
		c.warn(key+".max_sessions", r.MaxSessions, without)
	}
}

// softened warns of rules that ask for less than a second factor from everybody.
func (c *checker) softened(key string, r Rule) {
	switch r.SecondFactor {
	case "optional":
		c.warn(key+".second_factor", r.SecondFactor, `accounts without an enrolment that this rule fits get in with the password alone; "required" asks them too`)
	case "observe":
		c.warn(key+".second_factor", r.SecondFactor, `whoever this rule fits gets in with the password alone, this only records it; "required" asks for the second factor`)
	default:
		return
	}
	if len(r.Programs) > 0 {
		c.warn(key+".programs", strings.Join(r.Programs, ", "), "keeps nobody from what this rule waives: a program can say that it is any other")
	}
}

// fitsAll says if no attempt can pass the rule by. A matcher whose value couldn't be
// read is one nevertheless, and keeps it from that.
func (c *checker) fitsAll(key string, r Rule) bool {
	given := func(matcher string) bool { return c.place[key+"."+matcher] > 0 }
	if slices.ContainsFunc([]string{"since", "until", "weekdays", "hours", "countries", "owners"}, given) {
		return false
	}
	everybody := !given("accounts") || slices.Contains(r.Accounts, "*")
	everywhere := !given("networks") && !given("network_files") ||
		slices.ContainsFunc(r.Networks, anyIPv4) && slices.ContainsFunc(r.Networks, anyIPv6)
	anyhow := !given("tls") || slices.Contains(r.TLS, "1.2") && slices.Contains(r.TLS, "1.3")
	anything := !given("programs") || slices.Contains(r.Programs, "*")
	return everybody && everywhere && anyhow && anything
}

func anyIPv4(p netip.Prefix) bool { return p.Bits() == 0 && p.Addr().Is4() }
func anyIPv6(p netip.Prefix) bool { return p.Bits() == 0 && p.Addr().Is6() }

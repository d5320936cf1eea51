package policy

import (
	"net/netip"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // a machine without it should run these tests as well

	"pgregory.net/rapid"
)

func prefixes(networks ...string) (out []netip.Prefix) {
	for _, n := range networks {
		out = append(out, netip.MustParsePrefix(n))
	}
	return out
}

func berlin(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

// instant is a time with its offset, as two clocks that show the same may mean.
func instant(t *testing.T, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestRuleAccounts(t *testing.T) {
	tests := []struct {
		patterns string
		account  string
		want     bool
	}{
		{"", "alice", true},
		{"alice", "alice", true},
		{"alice", "alicea", false},
		{"alice", "Alice", false}, // policy sees folded names only
		{"bob alice", "alice", true},
		{"bob carol", "alice", false},
		{"*", "", true},
		{"*@example.org", "alice@example.org", true},
		{"*@example.org", "@example.org", true},
		{"*@example.org", "alice@example.org.evil", false},
		{"*@example.org", "alice@evil-example.org", false},
		{"a*e", "ae", true},
		{"a*a", "a", false}, // one octet isn't both ends
		{"a**e", "alice", true},
		{"*li*", "alice", true},
		{"a*c*i*", "alice", false},
		{"a*b*c", "a-b-b-c", true},
		{"al?ce", "alice", false},
	}
	for _, tt := range tests {
		rules := Rules{{Name: "r", Accounts: strings.Fields(tt.patterns)}}
		if got := rules.Match(Subject{Account: tt.account}).Rule != ""; got != tt.want {
			t.Errorf("%q against %q: %v", tt.account, tt.patterns, got)
		}
	}
}

// naive is glob as the words say it: a star stands for any octets, also none.
func naive(pattern, name string) bool {
	switch {
	case pattern == "":
		return name == ""
	case pattern[0] == '*':
		return naive(pattern[1:], name) || name != "" && naive(pattern, name[1:])
	}
	return name != "" && name[0] == pattern[0] && naive(pattern[1:], name[1:])
}

func TestGlobIsNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab*]{0,10}`).Draw(t, "pattern")
		name := rapid.StringMatching(`[ab*]{0,12}`).Draw(t, "name")
		if got, want := glob(pattern, name), naive(pattern, name); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func FuzzGlob(f *testing.F) {
	f.Add("*@example.org", "alice@example.org")
	f.Add("a*b*a", "aba")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(name) > 20 || strings.Count(pattern, "*") > 5 {
			return // the naive one takes its time
		}
		if got, want := glob(pattern, name), naive(pattern, name); got != want {
			t.Errorf("glob(%q, %q): %v, want %v", pattern, name, got, want)
		}
	})
}

// What takes a backtracking matcher longer than the universe has been there.
func TestGlobDoesNotBlowUp(t *testing.T) {
	if glob(strings.Repeat("a*", 1000)+"b", strings.Repeat("a", 100_000)) {
		t.Error("matches without a b")
	}
}

func TestRuleNetworks(t *testing.T) {
	tests := []struct {
		name     string
		networks []netip.Prefix
		addr     string
		want     bool
	}{
		{"none given", nil, "203.0.113.9", true},
		{"inside", prefixes("203.0.113.0/24"), "203.0.113.9", true},
		{"outside", prefixes("203.0.113.0/24"), "203.0.114.9", false},
		{"the second", prefixes("10.0.0.0/8", "203.0.113.0/24"), "203.0.113.9", true},
		{"host bits", prefixes("203.0.113.77/24"), "203.0.113.9", true},
		{"IPv6", prefixes("2001:db8::/32"), "2001:db8::1", true},
		{"IPv6 with a zone", prefixes("fe80::/10"), "fe80::1%eth0", true},
		{"IPv4 in IPv6", prefixes("203.0.113.0/24"), "::ffff:203.0.113.9", true},
		{"a network of IPv4 in IPv6", prefixes("::ffff:203.0.113.0/120"), "203.0.113.9", true},
		{"all IPv4 in IPv6", prefixes("::ffff:0.0.0.0/96"), "::ffff:203.0.113.9", true},
		{"all IPv6 is not IPv4", prefixes("::/0"), "203.0.113.9", false},
		{"no address", prefixes("0.0.0.0/0", "::/0"), "", false},
		{"no address, none given", nil, "", true},
		{"no network", make([]netip.Prefix, 1), "203.0.113.9", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var addr netip.Addr
			if tt.addr != "" {
				addr = netip.MustParseAddr(tt.addr)
			}
			rules := Rules{{Name: "r"}}
			if tt.networks != nil {
				rules[0].Networks = NewNetworkSet(tt.networks...)
			}
			if got := rules.Match(Subject{Addr: addr}).Rule != ""; got != tt.want {
				t.Errorf("%s: %v", tt.addr, got)
			}
		})
	}
}

func TestRuleTLSAndPrograms(t *testing.T) {
	tests := []struct {
		name    string
		rule    Rule
		tls     string
		program string
		want    bool
	}{
		{"none given", Rule{}, "1.3", "thunderbird", true},
		{"none given, nothing known", Rule{}, "", "", true},
		{"version", Rule{TLS: []string{"1.2"}}, "1.2", "", true},
		{"another version", Rule{TLS: []string{"1.2"}}, "1.3", "", false},
		{"either version", Rule{TLS: []string{"1.2", "1.3"}}, "1.3", "", true},
		{"no version", Rule{TLS: []string{"1.2", "1.3"}}, "", "", false},
		{"program", Rule{Programs: []string{"k-9*", "thunderbird*"}}, "1.3", "thunderbird 140.0", true},
		{"another program", Rule{Programs: []string{"thunderbird*"}}, "1.3", "old thunderbird", false},
		{"says nothing", Rule{Programs: []string{"thunderbird*"}}, "1.3", "", false},
		{"for who says nothing", Rule{Programs: []string{""}}, "1.3", "", true},
		{"for who says nothing, but does", Rule{Programs: []string{""}}, "1.3", "k-9", false},
		{"any", Rule{Programs: []string{"*"}}, "1.3", "", true},
		{"both, one fits", Rule{TLS: []string{"1.2"}, Programs: []string{"k-9*"}}, "1.3", "k-9", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.rule.Name = "r"
			if got := (Rules{tt.rule}).Match(Subject{TLS: tt.tls, Program: tt.program}).Rule != ""; got != tt.want {
				t.Errorf("TLS %q, program %q: %v", tt.tls, tt.program, got)
			}
		})
	}
}

func TestRuleTimes(t *testing.T) {
	const hour = time.Hour
	zone := berlin(t)
	work := Rule{Weekdays: []time.Weekday{time.Monday, time.Friday}, From: 8 * hour, To: 18 * hour, Zone: zone}
	night := Rule{Weekdays: []time.Weekday{time.Friday}, From: 22 * hour, To: 6 * hour, Zone: zone}
	evening := Rule{Weekdays: []time.Weekday{time.Friday}, From: 18 * hour, Zone: zone}
	saturdays := Rule{Weekdays: []time.Weekday{time.Saturday}, Zone: zone}
	fromNine := Rule{Weekdays: []time.Weekday{time.Friday}, From: 9 * hour, To: 9 * hour, Zone: zone}
	summer := Rule{Since: instant(t, "2026-06-01T00:00:00+02:00"), Until: instant(t, "2026-09-01T00:00:00+02:00")}
	small := Rule{From: 2 * hour, To: 3 * hour, Zone: zone} // the hour that the clocks skip, or show twice
	long := Rule{From: 22 * hour, To: 2*hour + 30*time.Minute, Weekdays: []time.Weekday{time.Saturday}, Zone: zone}

	tests := []struct {
		name string
		rule Rule
		at   string // 2026-11-20 is a Friday
		want bool
	}{
		{"begins", work, "2026-11-20T08:00:00+01:00", true},
		{"a moment before", work, "2026-11-20T07:59:59.999999999+01:00", false},
		{"a moment before its end", work, "2026-11-20T17:59:59.999999999+01:00", true},
		{"ends", work, "2026-11-20T18:00:00+01:00", false},
		{"in its own zone", work, "2026-11-20T07:00:00Z", true},
		{"another weekday", work, "2026-11-19T12:00:00+01:00", false},
		{"a weekday in its own zone", saturdays, "2026-11-20T23:00:00Z", true},
		{"a weekday elsewhere", saturdays, "2026-11-21T23:00:00Z", false},

		{"night begins", night, "2026-11-20T22:00:00+01:00", true},
		{"night goes on", night, "2026-11-21T05:59:59+01:00", true},
		{"night ends", night, "2026-11-21T06:00:00+01:00", false},
		{"the night before", night, "2026-11-20T05:00:00+01:00", false},
		{"the next night", night, "2026-11-21T22:00:00+01:00", false},
		{"day between two nights", night, "2026-11-20T12:00:00+01:00", false},
		{"until midnight", evening, "2026-11-20T23:59:59+01:00", true},
		{"not after it", evening, "2026-11-21T00:00:00+01:00", false},
		{"around the clock", fromNine, "2026-11-21T08:59:59+01:00", true},
		{"around it once", fromNine, "2026-11-21T09:00:00+01:00", false},
		{"not yet", fromNine, "2026-11-20T08:59:59+01:00", false},

		{"since", summer, "2026-06-01T00:00:00+02:00", true},
		{"before since", summer, "2026-05-31T23:59:59+02:00", false},
		{"before until", summer, "2026-08-31T23:59:59+02:00", true},
		{"until", summer, "2026-09-01T00:00:00+02:00", false},
		{"since, open", Rule{Since: summer.Since}, "2999-01-01T00:00:00Z", true},
		{"until, open", Rule{Until: summer.Until}, "1999-01-01T00:00:00Z", true},

		// 2026-03-29, Europe/Berlin: after 01:59:59 comes 03:00:00.
		{"spring, before the gap", small, "2026-03-29T01:59:59+01:00", false},
		{"spring, after the gap", small, "2026-03-29T03:00:00+02:00", false},
		{"spring, working hours begin", Rule{From: 8 * hour, To: 9 * hour, Zone: zone}, "2026-03-29T08:00:00+02:00", true},
		{"spring, an hour early", Rule{From: 8 * hour, To: 9 * hour, Zone: zone}, "2026-03-29T07:00:00+02:00", false},
		{"spring, the night has ended in the gap", long, "2026-03-29T03:00:00+02:00", false},
		{"spring, the night", long, "2026-03-29T01:59:59+01:00", true},

		// 2026-10-25, Europe/Berlin: after 02:59:59 comes 02:00:00.
		{"autumn, the first time", small, "2026-10-25T02:30:00+02:00", true},
		{"autumn, the second time", small, "2026-10-25T02:30:00+01:00", true},
		{"autumn, over", small, "2026-10-25T03:00:00+01:00", false},
		{"autumn, working hours begin", Rule{From: 8 * hour, To: 9 * hour, Zone: zone}, "2026-10-25T08:00:00+01:00", true},
		{"autumn, an hour late", Rule{From: 8 * hour, To: 9 * hour, Zone: zone}, "2026-10-25T09:00:00+01:00", false},
		{"autumn, the night ends", long, "2026-10-25T02:30:00+02:00", false},
		{"autumn, the night is back", long, "2026-10-25T02:00:00+01:00", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.rule.Name = "r"
			if got := (Rules{tt.rule}).Match(Subject{Time: instant(t, tt.at)}).Rule != ""; got != tt.want {
				t.Errorf("%s: %v", tt.at, got)
			}
		})
	}
}

func TestRuleWithoutAZoneIsLocal(t *testing.T) {
	rules := Rules{{Name: "r", From: 8 * time.Hour, To: 9 * time.Hour}}
	for hour, want := range map[int]string{8: "r", 9: ""} {
		s := Subject{Time: time.Date(2026, time.November, 20, hour, 0, 0, 0, time.Local).UTC()}
		if got := rules.Match(s).Rule; got != want {
			t.Errorf("at %d: %q", hour, got)
		}
	}
}

func TestRulesFirstMatchWins(t *testing.T) {
	rules := Rules{
		{
			Name: "night", Accounts: []string{"alice"}, Networks: NewNetworkSet(prefixes("203.0.113.0/24")...),
			From: 22 * time.Hour, To: 6 * time.Hour, Zone: time.UTC, Deny: true,
		},
		{Name: "guests", Networks: NewNetworkSet(prefixes("203.0.113.0/24")...), SecondFactor: "required", ReadOnly: true, MaxSessions: 2},
		{Name: "alice", Accounts: []string{"alice"}, SecondFactor: "optional"},
		{Name: "also alice", Accounts: []string{"alice"}, Deny: true},
	}
	day, night := instant(t, "2026-11-20T12:00:00Z"), instant(t, "2026-11-20T23:00:00Z")
	guests := Ruling{Rule: "guests", SecondFactor: "required", ReadOnly: true, MaxSessions: 2}
	tests := []struct {
		name string
		in   Subject
		want Ruling
	}{
		{"all matchers hold", Subject{Account: "alice", Addr: hotel, Time: night}, Ruling{Rule: "night", Denied: true}},
		{"all but the time", Subject{Account: "alice", Addr: hotel, Time: day}, guests},
		{"all but the account", Subject{Account: "bob", Addr: hotel, Time: night}, guests},
		{"all but the network", Subject{Account: "alice", Addr: atHome, Time: night}, Ruling{Rule: "alice", SecondFactor: "optional"}},
		{"none", Subject{Account: "bob", Addr: atHome, Time: night}, Ruling{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := rules.Match(tt.in); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if n := testing.AllocsPerRun(100, func() { rules.Match(tt.in) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
	if got := Rules(nil).Match(Subject{Account: "alice", Addr: hotel, Time: day}); got != (Ruling{}) {
		t.Errorf("no rules: %+v", got)
	}
}

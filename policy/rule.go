package policy

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Rule says what goes for some accounts, from some places, at some times. All
// matchers that are given must hold; one that is left out holds for everything.
type Rule struct {
	Name string // for people, in audit records and explanations; none should be empty

	Accounts []string       // patterns, case-folded: a * stands for any octets, also none
	Networks []netip.Prefix // an address that isn't valid is in none of them

	Since, Until time.Time      // Until itself is too late
	Weekdays     []time.Weekday // of Zone
	From, To     time.Duration  // by Zone's clocks, since midnight; see onClock
	Zone         *time.Location // nil: time.Local

	Deny         bool
	SecondFactor string // as mfa.mode, in place of it; "": mfa.mode goes
	ReadOnly     bool
	MaxSessions  int // of the account, see [Gate.Enter]; 0: as Limits says
}

// A Subject is what rules look at.
type Subject struct {
	Account string
	Addr    netip.Addr
	Time    time.Time
}

// A Ruling is what the rules say about a subject. The zero value is that of no rule.
type Ruling struct {
	Rule         string // the name of the one that matched; "": none did
	Denied       bool
	SecondFactor string // "": mfa.mode goes
	ReadOnly     bool
	MaxSessions  int // 0: as Limits says
}

// Rules are asked in their order. They may not change while they are in use.
type Rules []Rule

// Match returns the ruling of the first rule that matches.
func (rs Rules) Match(s Subject) Ruling {
	s.Addr = SourceOf(s.Addr).Addr
	for i := range rs {
		if r := &rs[i]; r.matches(s) {
			return Ruling{r.Name, r.Deny, r.SecondFactor, r.ReadOnly, r.MaxSessions}
		}
	}
	return Ruling{}
}

func (r *Rule) matches(s Subject) bool {
	return r.forAccount(s.Account) && r.forAddr(s.Addr) && r.inForce(s.Time) && r.onClock(s.Time)
}

func (r *Rule) forAccount(account string) bool {
	return len(r.Accounts) == 0 ||
		slices.ContainsFunc(r.Accounts, func(pattern string) bool { return glob(pattern, account) })
}

func (r *Rule) forAddr(addr netip.Addr) bool {
	return len(r.Networks) == 0 ||
		slices.ContainsFunc(r.Networks, func(p netip.Prefix) bool { return unmapped(p).Contains(addr) })
}

func (r *Rule) inForce(now time.Time) bool {
	return !now.Before(r.Since) && (r.Until.IsZero() || now.Before(r.Until))
}

// onClock asks for the weekday and the time of day, both as the clocks on Zone's walls
// show them: where these go back, an hour of that night holds twice; where they
// go forward, one never comes. From midnight to midnight is all day. Where To isn't
// after From, the time goes over midnight, and the weekday is that of its beginning.
func (r *Rule) onClock(now time.Time) bool {
	zone := r.Zone
	if zone == nil {
		zone = time.Local
	}
	now = now.In(zone)
	day, clock := now.Weekday(), timeOfDay(now)
	switch {
	case r.From == 0 && r.To == 0:
	case r.From < r.To:
		if clock < r.From || clock >= r.To {
			return false
		}
	case clock < r.To:
		day = (day + 6) % 7 // it began yesterday
	case clock < r.From:
		return false
	}
	return len(r.Weekdays) == 0 || slices.Contains(r.Weekdays, day)
}

// timeOfDay is what a clock on the wall shows, which on two days a year isn't the time
// that has passed since midnight.
func timeOfDay(t time.Time) time.Duration {
	hour, minute, second := t.Clock()
	return time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute +
		time.Duration(second)*time.Second + time.Duration(t.Nanosecond())
}

// unmapped returns the IPv4 network that an IPv6 one carries (RFC 4291, section
// 2.5.5.2), as [SourceOf] does with addresses, or else it would hold none of them.
func unmapped(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// glob says whether the name matches the pattern. Each piece between stars is taken
// where it is found first, which leaves the most for those after it: so there
// is nothing to go back for, and the time is linear whatever the pattern.
func glob(pattern, name string) bool {
	piece, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == name
	}
	name, ok := strings.CutPrefix(name, piece)
	for ok {
		if piece, rest, star = strings.Cut(rest, "*"); !star {
			return strings.HasSuffix(name, piece)
		}
		_, name, ok = strings.Cut(name, piece)
	}
	return false
}

package policy

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Rule says what goes for some accounts, from some places, at some times. All
// matchers that are given must hold; one that is left out holds for everything.
type Rule struct {
	Name string // for people, in audit records and explanations; none should be empty

	Accounts []string // patterns, case-folded: a * stands for any octets, also none

	// The address is in one of these; one that isn't valid is in none.
	Networks     *NetworkSet // nil: as NetworkFiles say
	NetworkFiles []*File[*NetworkSet]

	// Where the address is, by Geo. One that its files don't know is nowhere.
	Countries []string // ISO 3166-1 alpha-2, such as "DE"
	Owners    []uint32 // autonomous systems
	Geo       *Geo     // nil: all files are absent

	TLS      []string // versions, "1.2" or "1.3"
	Programs []string // patterns as Accounts has them, in lower case; the client's own claim

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
	TLS     string // the connection's version, such as "1.3"; "" without
	Program string // what the client says that it is, in lower case; "" where it says nothing
}

// A Ruling is what the rules say about a subject. The zero value is that of no rule.
type Ruling struct {
	Rule         string // the name of the one that matched; "": none did
	Denied       bool
	SecondFactor string // "": mfa.mode goes
	ReadOnly     bool
	MaxSessions  int // 0: as Limits says
}

// Rules are asked in their order. They may not change while they are in use; what their files
// say may, between one Match and the next, where Watch runs.
type Rules []Rule

// Match returns the ruling of the first rule that matches.
func (rs Rules) Match(s Subject) Ruling {
	s.Addr = SourceOf(s.Addr).Addr
	for i := range rs {
		r := &rs[i]
		if !r.matches(s) {
			continue
		}
		switch fits, known := r.Geo.fits(s.Addr, r.Countries, r.Owners); {
		case fits:
			return Ruling{r.Name, r.Deny, r.SecondFactor, r.ReadOnly, r.MaxSessions}
		case !known && r.Geo.refuses():
			return Ruling{Rule: r.Name, Denied: true}
		}
	}
	return Ruling{}
}

// Watch reads the rules' files again when they change, until ctx ends, see [File.Watch]. told
// may be called at the same time for several of them.
func (rs Rules) Watch(ctx context.Context, told func(path string, err error)) {
	var watching sync.WaitGroup
	for file := range rs.files() {
		watching.Go(func() { file.Watch(ctx, 0, told) })
	}
	watching.Wait()
}

type fileWatcher interface {
	Watch(ctx context.Context, every time.Duration, told func(path string, err error))
}

// files are those of all rules, each once.
func (rs Rules) files() map[fileWatcher]bool {
	files := make(map[fileWatcher]bool)
	for _, r := range rs {
		for _, file := range r.NetworkFiles {
			files[file] = true
		}
		if r.Geo != nil && r.Geo.Countries != nil {
			files[r.Geo.Countries] = true
		}
		if r.Geo != nil && r.Geo.Owners != nil {
			files[r.Geo.Owners] = true
		}
	}
	return files
}

// matches asks all matchers but those of [Geo], which may not know.
func (r *Rule) matches(s Subject) bool {
	return anyGlob(r.Accounts, s.Account) && r.forAddr(s.Addr) && r.inForce(s.Time) && r.onClock(s.Time) &&
		(len(r.TLS) == 0 || slices.Contains(r.TLS, s.TLS)) && anyGlob(r.Programs, s.Program)
}

func (r *Rule) forAddr(addr netip.Addr) bool {
	if r.Networks == nil && len(r.NetworkFiles) == 0 {
		return true
	}
	if r.Networks != nil && r.Networks.Contains(addr) {
		return true
	}
	return slices.ContainsFunc(r.NetworkFiles, func(file *File[*NetworkSet]) bool {
		networks, ok := file.Value()
		return ok && networks.Contains(addr)
	})
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

// anyGlob says whether the name matches one of the patterns. None are no matcher.
func anyGlob(patterns []string, name string) bool {
	return len(patterns) == 0 ||
		slices.ContainsFunc(patterns, func(pattern string) bool { return glob(pattern, name) })
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

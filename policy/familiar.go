package policy

import (
	"net/netip"
	"slices"
	"time"
)

const (
	maxFamiliar = 20 // networks remembered for an account
	homeDay     = 24 * time.Hour
)

// A familiarEntry is what an account's own sign-ins taught us. Only they create
// one, so no flood of invented names can push out those of real accounts.
type familiarEntry struct {
	homes []home // the newest last
	last  uint32 // when the account last signed in, in seconds since 1970
	seen  seen   // wrong secrets from these networks; strangers can't push them out
}

// A home is a network where the account has signed in. Attempts on the account from
// there have budgets of their own: one for each site where it did, and one for all other
// sites together. What others guess, from anywhere or from the address next door,
// doesn't use up the owner's.
type home struct {
	network netip.Prefix
	doors   []door // of sites, the newest last; the zero Prefix: all others
}

const (
	maxDoors      = 8 // of one home
	neighboursGet = 5 // what neighbours may fail in common is that part of what the owner may
)

// A door is what has been used of one budget.
type door struct {
	site     netip.Prefix
	last     int32     // the day when the account last signed in by it, since 1970; 0: of all others
	failures int       // since
	since    time.Time // when the first of them was
	flying   flying
}

// homeFacts is what a decision needs to know of an account at one of its homes.
type homeFacts struct {
	limit  int
	left   int           // failures left, before those of attempts in flight
	flying int           // attempts in flight
	refill time.Duration // until the day is over
}

func (d *door) facts(now time.Time, l *Limits) homeFacts {
	limit := l.FamiliarPerDay
	if !d.site.IsValid() {
		limit = max(1, limit/neighboursGet)
	}
	if d.isOver(now) {
		return homeFacts{limit: limit, left: limit, flying: d.flying.count}
	}
	return homeFacts{limit: limit, left: limit - d.failures, flying: d.flying.count, refill: d.since.Add(homeDay).Sub(now)}
}

// door returns that of a site, nil where it has none.
func (h *home) door(site netip.Prefix) *door {
	for i := range h.doors {
		if h.doors[i].site == site {
			return &h.doors[i]
		}
	}
	return nil
}

// open returns the site's door, or that of all others.
func (h *home) open(site netip.Prefix) *door {
	if d := h.door(site); d != nil {
		return d
	}
	if d := h.door(netip.Prefix{}); d != nil {
		return d
	}
	h.doors = append(h.doors, door{})
	return &h.doors[len(h.doors)-1]
}

// peek is open that changes nothing.
func (h *home) peek(site netip.Prefix) door {
	for _, site := range []netip.Prefix{site, {}} {
		if d := h.door(site); d != nil {
			return *d
		}
	}
	return door{}
}

// welcome gives the site a door of its own, since the account has signed in from there. It says
// whether that is the first time of the day.
func (h *home) welcome(site netip.Prefix, day int32) (first bool) {
	if !site.IsValid() {
		return false
	}
	d := h.door(site)
	if d == nil {
		if len(h.doors) > maxDoors {
			i := slices.IndexFunc(h.doors, func(d door) bool { return d.site.IsValid() && d.flying.count == 0 })
			if i < 0 {
				return false
			}
			h.doors = slices.Delete(h.doors, i, i+1)
		}
		h.doors = append(h.doors, door{site: site})
		d = &h.doors[len(h.doors)-1]
	}
	first = d.last < day
	d.last = max(d.last, day)
	return first
}

func (h *home) flying() bool {
	return slices.ContainsFunc(h.doors, func(d door) bool { return d.flying.count > 0 })
}

func judgeHome(f homeFacts) Decision {
	switch {
	case f.left < 1:
		return refuse(FamiliarLimit, f.refill)
	case f.flying >= f.left:
		return refuseBusy(FamiliarLimit)
	}
	return Decision{Allowed: true}
}

// isOver says whether the day is that began with the first failure; it is also where that was written while the
// clock was ahead.
func (d *door) isOver(now time.Time) bool {
	return now.Sub(d.since) >= homeDay || d.since.Sub(now) > time.Minute
}

func (d *door) charge(now time.Time) {
	if d.isOver(now) {
		d.failures, d.since = 0, now
	}
	d.failures++
}

// isNear says whether the account has a home in that range.
func (e *familiarEntry) isNear(far netip.Prefix, now time.Time) bool {
	return since(e.last, now) < residentFor &&
		slices.ContainsFunc(e.homes, func(h home) bool { return far.Overlaps(h.network) })
}

// home returns the entry's home at the network; nil where the account never signed in there, and where
// it hasn't signed in anywhere for long.
func (e *familiarEntry) home(network netip.Prefix, now time.Time) *home {
	if since(e.last, now) >= residentFor {
		return nil
	}
	for i := range e.homes {
		if e.homes[i].network == network {
			return &e.homes[i]
		}
	}
	return nil
}

// add remembers where the account has signed in, and says whether that is the first time of the
// day. A network with attempts in flight isn't the one to go.
func (e *familiarEntry) add(source Source, at time.Time) (first bool) {
	network := source.Network()
	h := home{network: network}
	if i := slices.IndexFunc(e.homes, func(h home) bool { return h.network == network }); i >= 0 {
		h = e.homes[i]
		e.homes = slices.Delete(e.homes, i, i+1)
	} else if len(e.homes) >= maxFamiliar {
		if i := slices.IndexFunc(e.homes, func(h home) bool { return !h.flying() }); i >= 0 {
			e.homes = slices.Delete(e.homes, i, i+1)
		}
	}
	first = h.welcome(source.Site(), dayOf(at))
	e.homes = append(e.homes, h)
	e.last = max(e.last, secondsOf(at))
	return first
}

func (e *familiarEntry) keep(now time.Time) (keeping, uint32) {
	switch {
	case slices.ContainsFunc(e.homes, func(h home) bool { return h.flying() }):
		return held, e.last
	case len(e.homes) == 0, since(e.last, now) >= residentFor:
		return forgotten, 0
	}
	return cached, e.last
}

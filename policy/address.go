package policy

import (
	"math"
	"math/bits"
	"net/netip"
	"time"
)

const (
	rangeFactor = 3                // the /26 (IPv6 /48) may fail so many times as often as the site
	wideFactor  = 9                // and the /21 (/32)
	rowEnds     = 10 * time.Minute // without a failure so long, the next is the first in a row
)

// A siteEntry counts the failed attempts of one source's site, and who signed in from it.
type siteEntry struct {
	spent  spent
	signed signed
	last   uint32 // the newest failure, in seconds since 1970
	// penalised is set by an empty bucket and stays until both are half full
	// again, so that what the source has used of its day isn't lost at once.
	penalised bool
	row       uint8 // failures in a row, up to 255
	kept      bool  // an attempt is kept waiting in the tarpit
}

// A rangeEntry counts those of a prefix with many sites.
type rangeEntry struct {
	spent  spent
	signed signed
	// penalised is as in a siteEntry.
	penalised bool
}

// spent is what has been used of two budgets.
type spent struct{ minute, day bucket }

// allowance is what both budgets hold.
type allowance struct{ minute, day rate }

// allowance returns that of a source from which so many accounts have signed in lately: failures
// there are more likely to be those of people.
func (l *Limits) allowance(factor int, accounts int) allowance {
	more := accounts * l.NATShare / 100
	return allowance{
		minute: rate{burst: factor*l.AddressPerMinute + more, per: time.Minute},
		day:    rate{burst: factor*l.AddressPerDay + more, per: 24 * time.Hour},
	}
}

// addressFacts is what a decision needs to know of one prefix around the source.
type addressFacts struct {
	minute, day float64       // failures left, before those of attempts in flight
	flying      int           // attempts in flight
	refill      time.Duration // until both have one failure left
}

func (s *spent) facts(a allowance, flying int, now time.Time) addressFacts {
	return addressFacts{
		minute: s.minute.left(now, a.minute),
		day:    s.day.left(now, a.day),
		flying: flying,
		refill: max(s.minute.refill(now, a.minute), s.day.refill(now, a.day)),
	}
}

// left is what may fail now.
func (f addressFacts) left() float64 { return min(f.minute, f.day) }

// judgeAddress decides by what is left of one prefix's budgets.
func judgeAddress(f addressFacts, signal string) Decision {
	left := f.left()
	switch {
	case left < 1:
		return refuse(signal, f.refill)
	case left-float64(f.flying) < 1:
		return refuseBusy(signal)
	}
	return Decision{Allowed: true}
}

func (s *spent) charge(a allowance, now time.Time) {
	s.minute.take(now, a.minute, 1)
	s.day.take(now, a.day, 1)
}

// penalised says whether the prefix is to be remembered, given whether it was until now.
func (s *spent) penalised(was bool, a allowance, now time.Time) bool {
	minute, day := s.minute.left(now, a.minute), s.day.left(now, a.day)
	switch {
	case minute < 1 || day < 1:
		return true
	case minute >= float64(a.minute.burst)/2 && day >= float64(a.day.burst)/2:
		return false
	}
	return was
}

func (e *siteEntry) charge(l *Limits, now time.Time) {
	a := l.allowance(1, e.signed.count(now))
	e.spent.charge(a, now)
	e.penalised = e.spent.penalised(e.penalised, a, now)
	e.row, e.last = min(uint8(e.inARow(now)), math.MaxUint8-1)+1, secondsOf(now)
}

// inARow returns how many attempts have failed one after the other.
func (e *siteEntry) inARow(now time.Time) int {
	if since(e.last, now) >= rowEnds {
		return 0
	}
	return int(e.row)
}

func (e *siteEntry) keep(now time.Time) (keeping, uint32) {
	switch {
	case e.kept, e.penalised && since(e.last, now) < 24*time.Hour:
		return held, e.last
	case e.spent == spent{} && e.signed.count(now) == 0:
		return forgotten, 0
	}
	return cached, max(e.last, e.signed.at())
}

func (e *rangeEntry) charge(l *Limits, factor int, now time.Time) {
	a := l.allowance(factor, e.signed.count(now))
	e.spent.charge(a, now)
	e.penalised = e.spent.penalised(e.penalised, a, now)
}

func (e *rangeEntry) keep(now time.Time) (keeping, uint32) {
	last := e.spent.minute.seconds()
	switch {
	case e.penalised && since(last, now) < 24*time.Hour:
		return held, last
	case e.spent == spent{} && e.signed.count(now) == 0:
		return forgotten, 0
	}
	return cached, max(last, e.signed.at())
}

// signed estimates how many accounts have signed in today or yesterday, in few octets: each sets
// one of 64 bits, and the share of those that are clear tells how many did (linear counting:
// Whang et al. 1990). It is good to about 150, and never says more than 266.
type signed struct {
	today, yesterday uint64
	day              int32 // since 1970
}

// mark notes that the account with the hash has signed in.
func (s *signed) mark(hash uint64, now time.Time) {
	s.turn(now)
	s.today |= 1 << (hash % 64)
}

func (s *signed) turn(now time.Time) {
	day := dayOf(now)
	switch day - s.day {
	case 0:
	case 1:
		s.today, s.yesterday = 0, s.today
	default:
		s.today, s.yesterday = 0, 0
	}
	s.day = day
}

func (s signed) count(now time.Time) int {
	s.turn(now)
	n := bits.OnesCount64(s.today | s.yesterday)
	if n <= 1 {
		return n
	}
	return int(math.Round(-64 * math.Log(1-min(float64(n), 63)/64)))
}

// at is when it last counted somebody, to the day, in seconds since 1970.
func (s signed) at() uint32 { return uint32(s.day) * (24 * 60 * 60) }

func dayOf(t time.Time) int32 { return int32(t.Unix() / (24 * 60 * 60)) }

// secondsOf returns a time in seconds since 1970, as entries keep it.
func secondsOf(t time.Time) uint32 { return uint32(t.Unix()) }

// since returns how long ago that was, and 0 where it is yet to come.
func since(at uint32, now time.Time) time.Duration {
	return time.Duration(max(0, now.Unix()-int64(at))) * time.Second
}

// aRange is one of the prefixes around a source that share a budget.
type aRange struct {
	prefix netip.Prefix
	factor int
}

// ranges returns the prefixes that share budgets with the site, the narrow one first.
func (s Source) ranges() [2]aRange {
	return [2]aRange{{s.prefix(26, 48), rangeFactor}, {s.prefix(21, 32), wideFactor}}
}

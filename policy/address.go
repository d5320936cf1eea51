package policy

import (
	"time"

	"golang.org/x/time/rate"
)

// An addressEntry counts the failed attempts of one source's site.
type addressEntry struct {
	minute, day *rate.Limiter // what it may still fail
	flying      flying
	// penalised is set by an empty bucket and stays until both are half full
	// again, so that what the source has used of its day isn't lost at once.
	penalised bool
	seen      seen // wrong app passwords; wrong passwords are in the accountEntry
}

func newAddressEntry(l Limits) *addressEntry {
	return &addressEntry{
		minute: rate.NewLimiter(rate.Limit(l.AddressPerMinute)/60, l.AddressPerMinute),
		day:    rate.NewLimiter(rate.Limit(l.AddressPerDay)/(24*60*60), l.AddressPerDay),
	}
}

// addressFacts is what a decision needs to know of the address.
type addressFacts struct {
	minute, day float64       // failures left, before those of attempts in flight
	flying      int           // attempts in flight
	refill      time.Duration // until both have one failure left
}

func (e *addressEntry) facts(now time.Time) addressFacts {
	return addressFacts{
		minute: e.minute.TokensAt(now),
		day:    e.day.TokensAt(now),
		flying: e.flying.count,
		refill: max(untilOne(e.minute, now), untilOne(e.day, now)),
	}
}

func judgeAddress(f addressFacts) Decision {
	left := min(f.minute, f.day)
	switch {
	case left < 1:
		return refuse(AddressLimit, f.refill)
	case left-float64(f.flying) < 1:
		return refuseBusy(AddressLimit)
	}
	return Decision{Allowed: true}
}

// charge takes one failure from both buckets. The look came first, in judgeAddress:
// x/time/rate can't give back what was reserved in advance.
func (e *addressEntry) charge(now time.Time) {
	e.minute.AllowN(now, 1)
	e.day.AllowN(now, 1)
}

func (e *addressEntry) keep(now time.Time) keeping {
	minute, day := e.minute.TokensAt(now), e.day.TokensAt(now)
	fullMinute, fullDay := float64(e.minute.Burst()), float64(e.day.Burst())
	if minute < 1 || day < 1 {
		e.penalised = true
	} else if minute >= fullMinute/2 && day >= fullDay/2 {
		e.penalised = false
	}
	switch {
	case e.flying.count > 0:
		return pinned
	case e.penalised:
		return held
	case minute >= fullMinute && day >= fullDay: // what was seen may cost its first failure again
		return forgotten
	}
	return cached
}

// untilOne is the time until the bucket holds a token.
func untilOne(l *rate.Limiter, now time.Time) time.Duration {
	missing := 1 - l.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing / float64(l.Limit()) * float64(time.Second))
}

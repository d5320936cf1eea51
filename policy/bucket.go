package policy

import "time"

// A rate is how much of something may happen: burst at once, and again as the time passes in
// which all of it comes back.
type rate struct {
	burst int
	per   time.Duration
}

// interval is in whole nanoseconds, so that a bucket has one left when refill said that it would.
func (r rate) interval() time.Duration { return max(1, r.per/time.Duration(max(1, r.burst))) }

// A bucket counts what of a rate has been used, in eight octets: when all of it will have come back,
// in nanoseconds since 1970 (the theoretical arrival time of the generic cell rate algorithm,
// ITU-T I.371). The rate may grow and shrink between calls.
type bucket int64

// left returns how much may happen now.
func (b bucket) left(now time.Time, r rate) float64 {
	return float64(r.burst) - float64(b.back(now, r))/float64(r.interval())
}

// back is how long it takes until all has come back. No rate makes that longer than twice its time:
// what is farther ahead was counted while the clock was wrong, and nobody is to wait for that.
func (b bucket) back(now time.Time, r rate) time.Duration {
	back := time.Duration(int64(b) - now.UnixNano())
	if back > 2*r.per {
		return 0
	}
	return max(0, back)
}

// refill returns how long it takes until one is left, 0 where there never is.
func (b bucket) refill(now time.Time, r rate) time.Duration {
	if r.burst < 1 {
		return 0
	}
	return max(0, b.back(now, r)-time.Duration(r.burst-1)*r.interval())
}

// seconds is when all of it will have come back, in seconds since 1970.
func (b bucket) seconds() uint32 { return uint32(b / bucket(time.Second)) }

// take uses n, also of what isn't there: but never more than one more than all, so that
// whoever waits is let on again.
func (b *bucket) take(now time.Time, r rate, n int) {
	back := b.back(now, r) + time.Duration(n)*r.interval()
	most := time.Duration(r.burst+1) * r.interval()
	*b = bucket(now.UnixNano() + int64(min(back, most)))
}

package policy

import "time"

// A rate is how much of something may happen: burst at once, and again as the time passes in
// which all of it comes back.
type rate struct {
	burst int
	per   time.Duration
}

func (r rate) interval() float64 { return float64(r.per) / float64(max(1, r.burst)) }

// A bucket counts what of a rate has been used, in eight octets: when all of it will have come back,
// in nanoseconds since 1970 (the theoretical arrival time of the generic cell rate algorithm,
// ITU-T I.371). The rate may grow and shrink between calls.
type bucket int64

// left returns how much may happen now.
func (b bucket) left(now time.Time, r rate) float64 {
	used := max(0, float64(int64(b)-now.UnixNano())/r.interval())
	return float64(r.burst) - used
}

// refill returns how long it takes until one is left.
func (b bucket) refill(now time.Time, r rate) time.Duration {
	missing := 1 - b.left(now, r)
	if missing <= 0 || r.burst < 1 {
		return 0
	}
	return time.Duration(missing * r.interval())
}

// seconds is when all of it will have come back, in seconds since 1970.
func (b bucket) seconds() uint32 { return uint32(b / bucket(time.Second)) }

// take uses n, also of what isn't there: but never more than one more than all, so that
// whoever waits is let on again.
func (b *bucket) take(now time.Time, r rate, n int) {
	at := now.UnixNano()
	used := max(int64(*b), at) + int64(float64(n)*r.interval())
	*b = bucket(min(used, at+int64(float64(r.burst+1)*r.interval())))
}

package policy

import (
	"math"
	"testing"
	"time"

	limiters "golang.org/x/time/rate"
	"pgregory.net/rapid"
)

// A bucket says what a limiter of x/time/rate does, whose eighty octets it is there to save.
func TestBucketIsALimiter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rateOf(t)
		var b bucket
		limiter := limiters.NewLimiter(limiters.Limit(float64(r.burst)/r.per.Seconds()), r.burst)
		now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(r.per)).Draw(t, "pause")))
			if got, want := b.left(now, r), limiter.TokensAt(now); math.Abs(got-want) > 1e-3 {
				t.Fatalf("%v left, want %v", got, want)
			}
			if limiter.TokensAt(now) >= 1.001 {
				limiter.AllowN(now, 1)
				b.take(now, r, 1)
			}
			if wait := b.refill(now, r); wait > 0 && b.left(now.Add(wait+time.Microsecond), r) < 1 {
				t.Fatalf("after the wait of %s there is less than one left", wait)
			}
		}
	})
}

func rateOf(t *rapid.T) rate {
	return rate{
		burst: rapid.IntRange(1, 1000).Draw(t, "burst"),
		per:   rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 24 * time.Hour}).Draw(t, "per"),
	}
}

// Whoever goes on regardless waits for no more than one more than all.
func TestBucketIsNeverDeep(t *testing.T) {
	r := rate{burst: 10, per: time.Minute}
	now := time.Now()
	var b bucket
	for range 1000 {
		b.take(now, r, 1)
	}
	if left := b.left(now, r); math.Abs(left+1) > 1e-6 {
		t.Errorf("%v left, want -1", left)
	}
	if left := b.left(now.Add(13*time.Second), r); left < 1 {
		t.Errorf("%v left after the wait", left)
	}
}

// What has been used stays used when the rate grows, and is less of it.
func TestBucketOfAnotherRate(t *testing.T) {
	now := time.Now()
	var b bucket
	for range 10 {
		b.take(now, rate{burst: 10, per: time.Minute}, 1)
	}
	if left := b.left(now, rate{burst: 20, per: time.Minute}); math.Abs(left) > 1e-6 {
		t.Errorf("%v left: all of a minute was used", left)
	}
	if left := b.left(now.Add(30*time.Second), rate{burst: 20, per: time.Minute}); math.Abs(left-10) > 1e-6 {
		t.Errorf("%v left after half a minute, want 10", left)
	}
}

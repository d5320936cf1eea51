package policy

import (
	"math"
	"math/big"
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
			n := rapid.IntRange(1, r.burst).Draw(t, "n")
			if limiter.TokensAt(now) >= float64(n)+1e-3 {
				limiter.AllowN(now, n)
				b.take(now, r, n)
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

// A share is what a bucket stands for, without its rounding: how much of the rate is used, 1 being
// all of it.
type share struct{ used big.Rat }

func (s *share) pass(d, per time.Duration) {
	s.used.Sub(&s.used, big.NewRat(int64(d), int64(per)))
	if s.used.Sign() < 0 {
		s.used.SetInt64(0)
	}
}

func (s *share) take(n, burst int) {
	s.used.Add(&s.used, big.NewRat(int64(n), int64(burst)))
	if most := big.NewRat(int64(burst)+1, int64(burst)); s.used.Cmp(most) > 0 {
		s.used.Set(most)
	}
}

func (s *share) left(burst int) float64 {
	unused := new(big.Rat).Sub(big.NewRat(1, 1), &s.used)
	left, _ := unused.Mul(unused, big.NewRat(int64(burst), 1)).Float64()
	return left
}

// The used share stays what it is when the burst changes, and whoever waits as long as is said
// finds one left, to the nanosecond.
func TestBucketIsAShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rateOf(t)
		var b bucket
		var s share
		now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			pause := time.Duration(rapid.Int64Range(0, int64(r.per)).Draw(t, "pause"))
			now = now.Add(pause)
			s.pass(pause, r.per)
			r.burst = rapid.IntRange(1, 1000).Draw(t, "burst")
			for range rapid.IntRange(0, 3).Draw(t, "takes") {
				n := rapid.IntRange(1, 2*r.burst).Draw(t, "n")
				b.take(now, r, n)
				s.take(n, r.burst)
			}
			if got, want := b.left(now, r), s.left(r.burst); math.Abs(got-want) > 1e-3 {
				t.Fatalf("%v of %d left, want %v", got, r.burst, want)
			}
			switch wait := b.refill(now, r); {
			case b.left(now.Add(wait), r) < 1:
				t.Fatalf("after the wait of %s %v left", wait, b.left(now.Add(wait), r))
			case wait > 0 && b.left(now.Add(wait-1), r) >= 1:
				t.Fatalf("one is left before the wait of %s is over", wait)
			}
		}
	})
}

// Whoever goes on regardless waits for no more than one more than all.
func TestBucketIsNeverDeep(t *testing.T) {
	r := rate{burst: 10, per: time.Minute}
	now := time.Now()
	var b bucket
	for range 1000 {
		b.take(now, r, 1)
	}
	if left := b.left(now, r); left != -1 {
		t.Errorf("%v left, want -1", left)
	}
	if wait := b.refill(now, r); wait != 12*time.Second {
		t.Errorf("the wait is %s, want 12s", wait)
	}
}

// What has been used stays used when the rate grows, and is less of it.
func TestBucketOfAnotherRate(t *testing.T) {
	now := time.Now()
	var b bucket
	b.take(now, rate{burst: 10, per: time.Minute}, 10)
	if left := b.left(now, rate{burst: 20, per: time.Minute}); left != 0 {
		t.Errorf("%v left: all of a minute was used", left)
	}
	if left := b.left(now.Add(30*time.Second), rate{burst: 20, per: time.Minute}); left != 10 {
		t.Errorf("%v left after half a minute, want 10", left)
	}
}

// Of a rate of nothing there never is one, and nobody is told to wait for it.
func TestBucketOfNothing(t *testing.T) {
	now := time.Now()
	for _, burst := range []int{0, -1} {
		var b bucket
		r := rate{burst: burst, per: time.Hour}
		b.take(now, r, 1)
		if b.left(now, r) > 0 || b.refill(now, r) != 0 {
			t.Errorf("burst %d: %v left, a wait of %s", burst, b.left(now, r), b.refill(now, r))
		}
	}
}

// What was counted while the clock was ahead is nothing once it is right, and what then is counted
// comes back in its time.
func TestBucketOfAnotherTime(t *testing.T) {
	r := rate{burst: 10, per: time.Minute}
	now := time.Now()
	var b bucket
	b.take(now.Add(time.Hour), r, 10)
	if left, wait := b.left(now, r), b.refill(now, r); left != 10 || wait != 0 {
		t.Errorf("%v left, a wait of %s", left, wait)
	}
	b.take(now, r, 10)
	if left, wait := b.left(now, r), b.refill(now, r); left != 0 || wait != 6*time.Second {
		t.Errorf("ten later %v left, a wait of %s", left, wait)
	}
}

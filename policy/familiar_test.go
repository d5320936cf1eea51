package policy

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// The neighbours in an owner's network have one budget together, and none of the owner's.
func TestNeighboursDontLockTheOwnerOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{AccountFailures: 1000})
		owner := password(netip.MustParseAddr("192.0.2.10"), "alice")
		_, trial := try(g, owner)
		trial.Succeeded(nil)
		tried := 0
		for i := range 20 {
			tried += guesses(g, password(netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}), "alice"))
		}
		if most := 10 + 20*10; tried > most { // together, and then each as a stranger
			t.Errorf("%d guesses from next door, want at most %d", tried, most)
		}
		if n := guesses(g, owner); n != 50 {
			t.Errorf("%d tries of the owner's own, want 50", n)
		}
		time.Sleep(time.Minute)
		moved := password(netip.MustParseAddr("192.0.2.200"), "alice") // another address of the same network
		if d := consider(g, moved); !d.Allowed {
			t.Errorf("the owner at another address: %+v", d)
		}
	})
}

func TestDoorsAreBounded(t *testing.T) {
	site := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32)
	}
	var h home
	for i := range 100 {
		h.welcome(site(i), 1)
		h.open(site(200))
	}
	if n := len(h.doors); n > maxDoors+1 {
		t.Errorf("%d doors", n)
	}
	if h.door(site(99)) == nil {
		t.Error("the newest has none")
	}
}

func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		g.Acquaint(password(hotel, "alice"))
		for _, at := range []Attempt{password(atHome, "alice"), password(hotel, "alice")} {
			d, trial := g.Begin(at.with("wrong"))
			if !d.Allowed || trial.Repeated() {
				t.Errorf("%+v, repeats what was never tried: %v", d, trial.Repeated())
			}
			if trial.failWith("wrong") {
				t.Error("the first isn't charged")
			}
			_, other := g.Begin(at.with("other"))
			_, trial = g.Begin(at.with("wrong"))
			if !trial.Repeated() || other.Repeated() {
				t.Error("doesn't know a wrong secret again")
			}
			if !trial.failWith("wrong") {
				t.Error("charges it again")
			}
			other.Release()
		}
	})
}

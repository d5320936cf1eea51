package policy

import (
	"net/netip"
	"testing"
	"testing/synctest"
)

// The neighbours in an owner's network have one budget together, and none of the owner's.
func TestNeighboursDontLockTheOwnerOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gate{Limits: Limits{AccountFailures: 1000}}
		owner := password(netip.MustParseAddr("192.0.2.10"), "alice")
		_, trial := g.Begin(owner)
		trial.Succeeded()
		tried := 0
		for i := range 20 {
			tried += guesses(g, password(netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)}), "alice"))
		}
		if most := 50 + 20*10; tried > most { // together, and then each as a stranger
			t.Errorf("%d guesses from next door, want at most %d", tried, most)
		}
		if n := guesses(g, owner); n != 50 {
			t.Errorf("%d tries of the owner's own, want 50", n)
		}
		moved := password(netip.MustParseAddr("192.0.2.77"), "alice") // another address of the same network
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
		h.welcome(site(i))
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
		var g Gate
		g.Acquaint(password(hotel, "alice"))
		wrong, other := g.Digest("alice", []byte("wrong")), g.Digest("alice", []byte("other"))
		for _, at := range []Attempt{password(atHome, "alice"), password(hotel, "alice")} {
			if g.Repeats(at, wrong) {
				t.Error("repeats what was never tried")
			}
			_, trial := g.Begin(at)
			if trial.Failed(wrong) {
				t.Error("the first isn't charged")
			}
			if !g.Repeats(at, wrong) || g.Repeats(at, other) {
				t.Error("doesn't know a wrong secret again")
			}
			if _, trial := g.Begin(at); !trial.Failed(wrong) {
				t.Error("charges it again")
			}
		}
	})
}

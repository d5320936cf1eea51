package policy

import (
	"net/netip"
	"sync"
	"testing"
)

func TestAdmit(t *testing.T) {
	g := &Gate{Limits: Limits{ConnectionsBeforeLogin: 2, TotalBeforeLogin: 3}}
	_, first := g.Admit(atHome)
	_, second := g.Admit(atHome)
	if d, slot := g.Admit(atHome); d.Signal != ConnectionsBeforeLogin || slot != nil {
		t.Errorf("third of one address: %+v", d)
	}
	if d, _ := g.Admit(hotel); !d.Allowed {
		t.Errorf("another address: %+v", d)
	}
	if d, slot := g.Admit(address(1)); d.Signal != ConnectionsTotal || slot != nil {
		t.Errorf("fourth of all: %+v", d)
	}
	first.Release()
	first.Release() // or else it would free the second's place as well
	if d, _ := g.Admit(atHome); !d.Allowed {
		t.Errorf("after a release: %+v", d)
	}
	if d, _ := g.Admit(atHome); d.Allowed {
		t.Error("one release made two places")
	}
	second.Release()
	var none *Slot
	none.Release()
}

func TestEnter(t *testing.T) {
	g := &Gate{Limits: Limits{PerAccountAndAddress: 2, PerAccount: 3}}
	_, first := g.Enter(atHome, "alice")
	g.Enter(atHome, "alice")
	if d, slot := g.Enter(atHome, "alice"); d.Signal != ConnectionsAccountSource || slot != nil {
		t.Errorf("third from one address: %+v", d)
	}
	if d, _ := g.Enter(atHome, "bob"); !d.Allowed {
		t.Errorf("another account: %+v", d)
	}
	g.Enter(hotel, "alice")
	if d, slot := g.Enter(address(1), "alice"); d.Signal != ConnectionsAccount || slot != nil {
		t.Errorf("fourth of the account: %+v", d)
	}
	first.Release()
	if d, _ := g.Enter(address(1), "alice"); !d.Allowed {
		t.Errorf("after a release: %+v", d)
	}
}

// A whole /48 gets a tenth of the places, and leaves the rest to others.
func TestOneNetworkDoesNotTakeAllPlaces(t *testing.T) {
	g := Gate{Limits: Limits{ConnectionsBeforeLogin: 10, TotalBeforeLogin: 1000}}
	admitted := 0
	for i := range 5000 {
		a := netip.MustParsePrefix("2001:db8:7::/48").Addr().As16()
		a[6], a[7] = byte(i>>8), byte(i)
		d, _ := g.Admit(netip.AddrFrom16(a))
		if d.Allowed {
			admitted++
		} else if d.Signal != ConnectionsNetwork {
			t.Fatalf("%+v", d)
		}
	}
	if admitted != 100 {
		t.Errorf("%d of 1,000 places for one network", admitted)
	}
	if d, _ := g.Admit(atHome); !d.Allowed {
		t.Errorf("somebody else: %+v", d)
	}
}

func TestSlotsLeaveNothingBehind(t *testing.T) {
	var g Gate
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			for j := range 100 {
				_, before := g.Admit(address(i*100 + j))
				_, after := g.Enter(address(j), "alice")
				wg.Go(before.Release)
				before.Release()
				after.Release()
			}
		})
	}
	wg.Wait()
	s := &g.slots
	if n := s.beforeLogin + len(s.sites) + len(s.networks) + len(s.accounts) + len(s.pairs); n != 0 {
		t.Errorf("%d counts left", n)
	}
}

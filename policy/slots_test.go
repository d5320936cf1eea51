package policy

import (
	"sync"
	"testing"
)

func TestAdmit(t *testing.T) {
	g := &Gate{Limits: Limits{ConnectionsBeforeLogin: 2, TotalBeforeLogin: 3}}
	_, first := g.Admit(home)
	_, second := g.Admit(home)
	if d, slot := g.Admit(home); d.Signal != ConnectionsBeforeLogin || slot != nil {
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
	if d, _ := g.Admit(home); !d.Allowed {
		t.Errorf("after a release: %+v", d)
	}
	if d, _ := g.Admit(home); d.Allowed {
		t.Error("one release made two places")
	}
	second.Release()
	var none *Slot
	none.Release()
}

func TestEnter(t *testing.T) {
	g := &Gate{Limits: Limits{PerAccountAndAddress: 2, PerAccount: 3}}
	_, first := g.Enter(home, "alice")
	g.Enter(home, "alice")
	if d, slot := g.Enter(home, "alice"); d.Signal != ConnectionsAccountSource || slot != nil {
		t.Errorf("third from one address: %+v", d)
	}
	if d, _ := g.Enter(home, "bob"); !d.Allowed {
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
	if n := s.beforeLogin + len(s.sites) + len(s.accounts) + len(s.pairs); n != 0 {
		t.Errorf("%d counts left", n)
	}
}

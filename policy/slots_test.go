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
	_, first := g.Enter(atHome, "alice", 0)
	g.Enter(atHome, "alice", 0)
	if d, slot := g.Enter(atHome, "alice", 0); d.Signal != ConnectionsAccountSource || slot != nil {
		t.Errorf("third from one address: %+v", d)
	}
	if d, _ := g.Enter(atHome, "bob", 0); !d.Allowed {
		t.Errorf("another account: %+v", d)
	}
	g.Enter(hotel, "alice", 0)
	if d, slot := g.Enter(address(1), "alice", 0); d.Signal != ConnectionsAccount || slot != nil {
		t.Errorf("fourth of the account: %+v", d)
	}
	first.Release()
	if d, _ := g.Enter(address(1), "alice", 0); !d.Allowed {
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
				_, after := g.Enter(address(j), "alice", 0)
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

// A rule's number takes the place of the account's, and the smaller one counts.
func TestEnterByRule(t *testing.T) {
	tests := []struct {
		name   string
		most   int
		from   func(int) netip.Addr
		want   int
		signal string
	}{
		{"none", 0, address, 6, ConnectionsAccount},
		{"less than nothing", -1, address, 6, ConnectionsAccount},
		{"fewer", 2, address, 2, ConnectionsAccount},
		{"more", 9, address, 9, ConnectionsAccount},
		{"fewer, one address", 2, func(int) netip.Addr { return atHome }, 2, ConnectionsAccount},
		{"more, one address", 9, func(int) netip.Addr { return atHome }, 4, ConnectionsAccountSource},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := &Gate{Limits: Limits{PerAccountAndAddress: 4, PerAccount: 6}}
			for i := range tt.want {
				if d, _ := g.Enter(tt.from(i), "alice", tt.most); !d.Allowed {
					t.Fatalf("session %d: %+v", i+1, d)
				}
			}
			if d, slot := g.Enter(tt.from(tt.want), "alice", tt.most); d.Signal != tt.signal || slot != nil {
				t.Errorf("session %d: %+v", tt.want+1, d)
			}
		})
	}
}

// Strangers from however many networks leave places to those from where somebody signs in.
func TestPlacesForThoseAtHome(t *testing.T) {
	g := &Gate{Limits: Limits{ConnectionsBeforeLogin: 10, TotalBeforeLogin: 100}}
	g.Acquaint(password(atHome, "alice"))
	flood := func(n int) (slots []*Slot, last Decision) {
		for i := range n {
			d, slot := g.Admit(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, byte(i)}))
			if last = d; d.Allowed {
				slots = append(slots, slot)
			}
		}
		return slots, last
	}
	slots, d := flood(200)
	if len(slots) != 75 || d.Signal != ConnectionsTotal {
		t.Errorf("%d of 100 places for strangers, then %+v", len(slots), d)
	}
	for i := range 10 {
		if d, _ := g.Admit(atHome); !d.Allowed {
			t.Fatalf("connection %d from home: %+v", i+1, d)
		}
	}
	for _, slot := range slots {
		slot.Release()
	}
	if slots, _ := flood(200); len(slots) != 75 {
		t.Errorf("later %d", len(slots))
	}
}

// The users of a webmail share its address: what some of them do at once doesn't shut out the others.
func TestWebmailSharesAnAddress(t *testing.T) {
	webmail := netip.MustParseAddr("192.0.2.80")
	g := &Gate{Limits: Limits{ConnectionsBeforeLogin: 2, TotalBeforeLogin: 60, Webmail: []netip.Prefix{netip.MustParsePrefix("192.0.2.80/32")}}}
	for i := range 60 {
		if d, _ := g.Admit(webmail); !d.Allowed {
			t.Fatalf("connection %d: %+v", i+1, d)
		}
	}
	if d, _ := g.Admit(webmail); d.Signal != ConnectionsTotal {
		t.Errorf("more than all together may have: %+v", d)
	}
}

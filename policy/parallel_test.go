package policy

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
)

// However many are under way at once, strangers with a password alone get no more than their budget.
func TestStrangersInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gate{Limits: Limits{StrangersPerHour: 30}}
		if n := g.burst(1000, func(i int) Attempt { return password(address(i*7), fmt.Sprint("u", i)) }); n != 30 {
			t.Errorf("%d of 1000 at once are shown to the upstream, want 30", n)
		}
	})
}

// Nor do the sites of one range together.
func TestRangesInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{AccountFailures: 1000})
		n := g.burst(400, func(i int) Attempt {
			return password(netip.MustParseAddr(fmt.Sprintf("2001:db8:1:%x::1", i+1)), fmt.Sprint("u", i%10))
		})
		if n != 30 {
			t.Errorf("%d of 400 at once from one /48 are judged, want 30", n)
		}
	})
}

// burst begins so many attempts at once, and says how many were shown to the upstream.
func (g *Gate) burst(n int, at func(int) Attempt) (shown int) {
	now, end := context.WithCancel(context.Background())
	end() // nobody waits
	for i := range n {
		d, trial := g.Begin(at(i).with(fmt.Sprint("guess", i)))
		if trial == nil {
			continue
		}
		if w := trial.Weigh(now, PasswordAlone); d.Allowed && w.Allowed {
			shown++
			defer trial.failWith(fmt.Sprint("guess", i))
		}
	}
	return shown
}

// In a network where many accounts are at home, an address that none of them knows shows the upstream
// no more than one from elsewhere does.
func TestNeighbourSprays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gate{}
		for i := range 500 {
			g.Acquaint(password(netip.MustParseAddr("198.51.100.7"), fmt.Sprint("u", i)))
		}
		shown := 0
		for n := range 10 {
			for i := range 500 {
				d, trial := g.Begin(password(netip.MustParseAddr("198.51.100.99"), fmt.Sprint("u", i)).with(fmt.Sprint(n, i)))
				if trial == nil {
					continue
				}
				now, end := context.WithCancel(context.Background())
				end()
				if w := trial.Weigh(now, Nothing); d.Allowed && w.Allowed {
					shown++
				}
				trial.Failed(Failure{Password: []byte(fmt.Sprint(n, i))})
				trial.Release()
			}
		}
		if most := 4 * 5; shown > most { // limits.unproved_per_hour, what it has at once
			t.Errorf("%d wrong passwords are shown to the upstream, want at most %d", shown, most)
		}
	})
}

// What others guess in a provider's network doesn't hold up a device with an app password.
func TestAppPasswordsPassRanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{AccountFailures: 1000})
		for i := range 30 {
			failures(t, g, netip.MustParseAddr(fmt.Sprintf("2001:db8:1:%x::1", i+1)), fmt.Sprint("u", i%10), 1)
		}
		phone := netip.MustParseAddr("2001:db8:1:ffff::1")
		if d := ask(g, phone, "owner"); d.Signal != RangeLimit {
			t.Fatalf("%+v", d)
		}
		if d := consider(g, device(password(phone, "owner"))); !d.Allowed {
			t.Errorf("%+v", d)
		}
	})
}

// A trusted host stays without limits, also for an account that has signed in through it.
func TestTrustedHostAsHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{Trusted: []netip.Prefix{netip.PrefixFrom(hotel, 32)}})
		signIn(t, g, hotel, "alice")
		for i := range 60 {
			guess(g, password(hotel, "alice"), i)
		}
		if d := ask(g, hotel, "alice"); !d.Allowed {
			t.Errorf("%+v", d)
		}
	})
}

// A decoy, a ban that are only observed are told of.
func TestObservedAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, told := watchful(Limits{Observed: []string{DecoyAccount, NetworkUnknown}, Decoys: []string{"backup"}})
		d, trial := g.Begin(password(hotel, "backup"))
		trial.Release()
		if d.Observed != DecoyAccount || len(told.list) != 1 || told.list[0].Signal != DecoyAccount {
			t.Errorf("%+v %v", d, told.list)
		}
		for i := range 6 {
			failAs(g, password(hotel, fmt.Sprint("invented", i)), Failure{Unknown: true})
		}
		if len(told.list) < 2 || told.list[1].Signal != NetworkUnknown || !told.list[1].Network.IsValid() {
			t.Errorf("%v", told.list)
		}
	})
}

// Who ends a ban has forgiven what led to it.
func TestUnbanForgives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		for i := range 6 {
			failAs(g, password(hotel, fmt.Sprint("invented", i)), Failure{Unknown: true})
		}
		bans, _ := g.Bans(t.Context())
		if len(bans) != 1 {
			t.Fatalf("%v", bans)
		}
		g.Unban(t.Context(), bans[0].Network)
		failAs(g, password(hotel, "another"), Failure{Unknown: true})
		if bans, _ := g.Bans(t.Context()); len(bans) != 0 {
			t.Errorf("banned again by the next failure: %v", bans)
		}
	})
}

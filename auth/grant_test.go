package auth

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestGrantEndsAbsolutely(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.accepted(w.visit(with(password+w.code())), FactorCode)
		for range 23 { // never idle
			time.Sleep(30 * time.Minute)
			w.accepted(w.visit(with(password)), FactorGrant)
		}
		time.Sleep(30 * time.Minute)
		w.refused(w.visit(with(password)), NoCode)
	})
}

func TestCodeRenewsTheGrant(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.visit(with(password + w.code()))
		time.Sleep(50 * time.Minute)
		second := w.visit(with(password + w.code()))
		w.accepted(second, FactorCode)
		if first.Grants[0] != second.Grants[0] || w.records.count() != 1 {
			t.Error("the same place and password have two grants")
		}
		time.Sleep(50 * time.Minute)
		w.accepted(w.visit(with(password)), FactorGrant)
	})
}

func TestGrantIdlesFromTheEndOfTheLastSession(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		v := w.login(with(password + w.code()))
		w.accepted(w.login(with(password)), FactorGrant)
		time.Sleep(3 * time.Hour) // both sessions are open
		w.SessionEnded(v)
		time.Sleep(3 * time.Hour) // one is
		w.accepted(w.visit(with(password)), FactorGrant)
		time.Sleep(3 * time.Hour)
		w.SessionEnded(v)
		time.Sleep(59 * time.Minute)
		w.accepted(w.visit(with(password)), FactorGrant)
		time.Sleep(61 * time.Minute)
		w.refused(w.visit(with(password)), NoCode)
	})
}

func TestRunWritesLastUses(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()

		v := w.login(with(password + w.code()))
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if age := time.Since(w.records.lastUsed(v.Grants[0])); age > writeEvery {
			t.Errorf("an open session was written %v ago", age)
		}
		w.records.setDown(true)
		w.SessionEnded(v)
		over := time.Now()
		time.Sleep(5 * time.Minute)
		w.records.setDown(false)
		time.Sleep(writeEvery)
		synctest.Wait()
		if last := w.records.lastUsed(v.Grants[0]); !last.Equal(over) {
			t.Errorf("last use written as %v, want %v", last, over)
		}
		time.Sleep(writeEvery)
		synctest.Wait()
		if w.remembered() != 0 {
			t.Error("what is written is not forgotten")
		}

		w.login(with(password))
		time.Sleep(writeEvery / 3)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if last := w.records.lastUsed(v.Grants[0]); !last.Equal(time.Now()) {
			t.Error("not written at the end")
		}
		w.restart()
		time.Sleep(59 * time.Minute)
		w.accepted(w.visit(with(password)), FactorGrant)
	})
}

func (w *world) remembered() int {
	w.stays.mu.Lock()
	defer w.stays.mu.Unlock()
	return len(w.stays.byGrant)
}

func TestRunPurgesAfterAWeek(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Run(ctx) }()
		w.visit(with(password + w.code()))
		time.Sleep(12*time.Hour + keepEnded - time.Hour)
		synctest.Wait()
		synctest.Wait()
		if w.records.count() != 1 {
			t.Error("purged too early")
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		synctest.Wait()
		if w.records.count() != 0 {
			t.Error("not purged")
		}
		stop()
		<-ended
	})
}

func TestPasswordChangeEndsTheGrant(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.accepted(w.visit(with(password+w.code())), FactorCode)
		w.accepted(w.visit(with(password+w.code()).from(neighbour)), FactorGrant)
		w.password = "changed"
		w.refused(w.visit(with(password)), WrongPassword)
		if w.records.count() != 0 {
			t.Error("the grant lives on")
		}
		w.password = password
		w.refused(w.visit(with(password)), NoCode)
	})
}

func TestGrantTakenAwayWhileTheUpstreamThinks(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.accepted(w.visit(with(password+w.code())), FactorCode)
		claim, err := w.Examine(t.Context(), Attempt{Account: "alice", Secret: Secret(password), Source: home})
		if err != nil {
			t.Fatal(err)
		}
		defer claim.Release()
		if _, err := w.records.RemoveGrants(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		v, err := claim.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.refused(v, Expired)
	})
}

func TestFamiliar(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		if w.visit(with("guess")).Familiar {
			t.Error("familiar before the first login")
		}
		w.visit(with(password + w.code()))
		time.Sleep(3 * 24 * time.Hour)
		mapped := netip.AddrFrom16(neighbour.As16())
		if !w.visit(with("guess").from(mapped)).Familiar || w.visit(with("guess").from(elsewhere)).Familiar {
			t.Error("an ended grant must make its network familiar, and no other")
		}
	})
}

func TestAtMostTwentyGrants(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.Grant.Absolute = 30 * 24 * time.Hour
		w.Grant.Idle = w.Grant.Absolute
		source := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, byte(n), 1}) }
		for n := range maxGrants + 2 {
			w.accepted(w.visit(with(password+w.code()).from(source(n))), FactorCode)
			time.Sleep(time.Minute)
		}
		if w.records.count() != maxGrants {
			t.Errorf("%d grants", w.records.count())
		}
		w.refused(w.visit(with(password).from(source(1))), NoCode)
		w.accepted(w.visit(with(password).from(source(2))), FactorGrant)
		w.accepted(w.visit(with(password).from(source(maxGrants+1))), FactorGrant)
	})
}

func TestGrantsOff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.Grant = GrantSettings{From: "off", IPv4Prefix: 24}
		code := w.code()
		w.accepted(w.visit(with(password+code)), FactorCode)
		time.Sleep(time.Minute)
		w.accepted(w.visit(with(password+code)), FactorGrant) // the same login
		w.refused(w.visit(with(password)), NoCode)
		w.refused(w.visit(with(password+code).from(neighbour)), ReplayedCode)
		w.refused(w.visit(with(password+w.neverRight())), WrongCode)
		time.Sleep(time.Minute)
		w.refused(w.visit(with(password+code)), ReplayedCode)
		time.Sleep(time.Minute)
		w.refused(w.visit(with(password+code)), Expired)
		w.accepted(w.visit(with(password+w.code())), FactorCode)

		// Neither kind of grant is taken for the other when the setting changes.
		w.Grant = GrantSettings{From: FromNetwork, IPv4Prefix: 32, Absolute: time.Hour, Idle: time.Hour}
		w.refused(w.visit(with(password)), NoCode)
		time.Sleep(time.Minute)
		w.accepted(w.visit(with(password+w.code())), FactorCode)
		w.Grant = GrantSettings{}
		w.refused(w.visit(with(password)), NoCode)
	})
}

func TestNetwork(t *testing.T) {
	on := GrantSettings{From: FromNetwork, IPv4Prefix: 24, IPv6Prefix: 64}
	for _, test := range []struct {
		s            GrantSettings
		source, want string
	}{
		{on, "192.0.2.77", "192.0.2.0/24"},
		{on, "::ffff:192.0.2.77", "192.0.2.0/24"},
		{on, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{on, "fe80::1%eth0", "fe80::/64"},
		{GrantSettings{From: FromNetwork}, "192.0.2.77", "192.0.2.77/32"}, // never everywhere
		{GrantSettings{From: FromNetwork, IPv4Prefix: 33, IPv6Prefix: -1}, "192.0.2.77", "192.0.2.77/32"},
		{GrantSettings{From: FromNetwork, IPv6Prefix: 129}, "2001:db8::1", "2001:db8::1/128"},
		{GrantSettings{From: "off", IPv4Prefix: 24}, "192.0.2.77", "192.0.2.77/32"},
		{GrantSettings{From: "unknown", IPv6Prefix: 64}, "2001:db8::1", "2001:db8::1/128"},
	} {
		if got := fmt.Sprint(test.s.network(netip.MustParseAddr(test.source))); got != test.want {
			t.Errorf("%s: %s, want %s", test.source, got, test.want)
		}
	}
}

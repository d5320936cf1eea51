package policy

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var (
	atHome = netip.MustParseAddr("198.51.100.7")
	hotel  = netip.MustParseAddr("203.0.113.9")
)

// address returns the n-th of many addresses, each in a /24 of its own.
func address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(10 + n>>16), byte(n >> 8), byte(n), 1})
}

// calm returns a Gate on which strangers have no budget in common, for tests of other limits.
func calm(l Limits) *Gate {
	l.StrangersPerHour = 1 << 30
	return &Gate{Limits: l}
}

// password returns an attempt with one.
func password(addr netip.Addr, account string) Attempt {
	return Attempt{Addr: addr, Account: account, Secret: []byte("open sesame")}
}

func (at Attempt) with(secret string) Attempt {
	at.Secret = []byte(secret)
	return at
}

// try takes an attempt to where the upstream would be asked about a password that is enough alone.
// It doesn't wait for attempts in flight.
func try(g *Gate, at Attempt) (Decision, *Trial) {
	return tryAs(g, at, PasswordAlone)
}

func tryAs(g *Gate, at Attempt, e Evidence) (Decision, *Trial) {
	d, trial := g.Begin(at)
	if trial == nil {
		return d, nil
	}
	now, end := context.WithCancel(context.Background())
	end()
	w := trial.Weigh(now, e)
	if !w.Allowed {
		trial.Release()
		return w, nil
	}
	return d.with(w), trial
}

// failWith ends a trial as wrong, and its refusal with it.
func (t *Trial) failWith(secret string) (again bool) {
	defer t.Release()
	return t.Failed(Failure{Password: []byte(secret)})
}

// fail makes one attempt with a wrong secret and returns the decision about it.
func fail(g *Gate, addr netip.Addr, account, secret string) Decision {
	d, trial := try(g, password(addr, account).with(secret))
	if trial != nil {
		trial.failWith(secret)
	}
	return d
}

// failures makes attempts with n distinct wrong secrets, and wants all judged.
func failures(t *testing.T, g *Gate, addr netip.Addr, account string, n int) {
	t.Helper()
	for i := range n {
		if d := fail(g, addr, account, fmt.Sprint(account, g.now(), addr, i)); !d.Allowed || d.Observed != "" {
			t.Fatalf("attempt %d of %d from %s: %+v", i+1, n, addr, d)
		}
	}
}

func signIn(t *testing.T, g *Gate, addr netip.Addr, account string) {
	t.Helper()
	d, trial := try(g, password(addr, account))
	if !d.Allowed {
		t.Fatalf("%s from %s: %+v", account, addr, d)
	}
	trial.Succeeded(nil)
}

// look returns the decision about an attempt whose outcome nobody learns.
func ask(g *Gate, addr netip.Addr, account string) Decision {
	return consider(g, password(addr, account))
}

// manyAccounts lets a test reach the limits of addresses without those of accounts.
func manyAccounts() *Gate { return calm(Limits{AccountFailures: 1000, NetworkAccounts: 100}) }

func TestAddressPerMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := manyAccounts()
		failures(t, g, hotel, "alice", 10)
		if d := ask(g, hotel, "bob"); d != (Decision{Signal: AddressLimit, Wait: 6 * time.Second}) {
			t.Fatalf("after ten failures: %+v", d)
		}
		if d := ask(g, atHome, "bob"); !d.Allowed {
			t.Fatalf("another address: %+v", d)
		}
		time.Sleep(6 * time.Second) // as Wait said
		failures(t, g, hotel, "alice", 1)
		if d := ask(g, hotel, "alice"); d.Allowed {
			t.Fatal("a second attempt after the wait for one")
		}
		time.Sleep(time.Minute)
		failures(t, g, hotel, "alice", 10)
	})
}

func TestAddressPerDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := manyAccounts()
		began := time.Now()
		n := 0
		for time.Since(began) < 24*time.Hour {
			if d := fail(g, hotel, "alice", fmt.Sprint(n)); d.Allowed {
				n++
			} else {
				time.Sleep(d.Wait)
			}
		}
		if n < 99 || n > 100 { // a full bucket and what flows in during the day
			t.Errorf("%d failures in the first day, want 50 and the 50 of the day", n)
		}
	})
}

func TestIPv6CountsPer64(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := manyAccounts()
		for i := range 10 {
			failures(t, g, netip.MustParseAddr(fmt.Sprintf("2001:db8:1:1::%d", i+1)), fmt.Sprint(i), 1)
		}
		if d := ask(g, netip.MustParseAddr("2001:db8:1:1:ffff::1"), "alice"); d.Signal != AddressLimit {
			t.Errorf("same /64: %+v", d)
		}
		if d := ask(g, netip.MustParseAddr("2001:db8:1:2::1"), "alice"); !d.Allowed {
			t.Errorf("next /64: %+v", d)
		}
	})
}

func TestGoodAttemptsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		for range 1000 {
			signIn(t, g, atHome, "alice")
			_, trial := try(g, password(atHome, "alice"))
			trial.Release()
		}
		failures(t, g, atHome, "alice", 10)
	})
}

func TestParallelAttemptsKeepTheLimit(t *testing.T) {
	for _, limits := range []Limits{
		{AddressPerMinute: 10, AccountFailures: 1000},
		{AddressPerMinute: 1000, AddressPerDay: 1000, AccountFailures: 10},
	} {
		g := calm(limits)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var trials []*Trial
		for range 40 {
			wg.Go(func() {
				if _, trial := try(g, password(hotel, "alice")); trial != nil {
					mu.Lock()
					trials = append(trials, trial)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if len(trials) != 10 {
			t.Fatalf("%d of 40 parallel attempts were judged, want 10", len(trials))
		}
		for i, trial := range trials {
			trial.failWith(fmt.Sprint(byte(i)))
		}
		if d := ask(g, hotel, "alice"); d.Allowed {
			t.Error("allowed after ten failures")
		}
	}
}

func TestTrialHasOneEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{AddressPerMinute: 2, AccountFailures: 2})
		_, trial := try(g, password(hotel, "alice"))
		trial.Release()
		trial.failWith(fmt.Sprint(1))
		trial.failWith(fmt.Sprint(2))
		trial.Succeeded(nil)
		var none *Trial
		none.Release()
		failures(t, g, hotel, "alice", 1) // neither charged nor familiar
		_, trial = try(g, password(hotel, "alice"))
		trial.failWith(fmt.Sprint(3))
		trial.Release()
		if d := ask(g, hotel, "bob"); d.Signal != AddressLimit {
			t.Errorf("address after two failures: %+v", d)
		}
		if d := ask(g, address(1), "alice"); d.Signal != AccountLimit {
			t.Errorf("account after two failures: %+v", d)
		}
	})
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		const programs = 200 // an office behind one address
		signIn(t, g, atHome, "alice")
		for range programs {
			go func() {
				d, trial := g.Await(t.Context(), password(atHome, "alice"))
				if !d.Allowed {
					t.Errorf("a good attempt was refused: %+v", d)
					return
				}
				time.Sleep(time.Second)
				trial.Succeeded(nil)
			}()
		}
		time.Sleep(programs / 10 * time.Second) // ten at a time
		synctest.Wait()
		failures(t, g, atHome, "alice", 10)
	})
}

func TestAwaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{AddressPerMinute: 1})
		_, trial := try(g, password(hotel, "alice"))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if d, _ := g.Await(ctx, password(hotel, "alice")); d.Allowed || ctx.Err() == nil {
			t.Errorf("with the only try in flight: %+v", d)
		}
		go func() {
			time.Sleep(time.Second)
			trial.failWith(fmt.Sprint(1))
		}()
		if d, _ := g.Await(t.Context(), password(hotel, "alice")); d.Signal != AddressLimit || d.Wait == 0 {
			t.Errorf("after that failed: %+v", d)
		}
	})
}

// Nobody waits for what an attempt only touched before another limit refused it.
func TestAwaitAfterRollback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{AddressPerMinute: 1, AccountFailures: 1})
		_, first := try(g, password(address(1), "alice"))
		for range 20 { // all at one address; the account is busy, the address mostly too
			go func() {
				d, trial := g.Await(t.Context(), password(hotel, "alice"))
				if !d.Allowed {
					t.Errorf("%+v", d)
					return
				}
				trial.Release()
			}()
		}
		synctest.Wait()
		first.Release()
		synctest.Wait()
		if d := ask(g, hotel, "alice"); !d.Allowed {
			t.Errorf("afterwards: %+v", d)
		}
	})
}

func TestAccountPenalty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		signIn(t, g, atHome, "alice")
		from := 0
		for _, penalty := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
			for range 10 { // each guess from a network of its own
				from++
				failures(t, g, address(from), "alice", 1)
			}
			if d := ask(g, hotel, "alice"); d != (Decision{Signal: AccountLimit, Wait: penalty * time.Minute}) {
				t.Fatalf("stranger: %+v, want %d min", d, penalty)
			}
			signIn(t, g, atHome, "alice") // the owner never notices
			if d := ask(g, hotel, "bob"); !d.Allowed {
				t.Fatalf("another account: %+v", d)
			}
			time.Sleep(penalty * time.Minute)
			if d := ask(g, hotel, "alice"); !d.Allowed {
				t.Fatalf("after %d min: %+v", penalty, d)
			}
		}
		time.Sleep(25 * time.Hour)
		for range 10 {
			from++
			failures(t, g, address(from), "alice", 1)
		}
		if d := ask(g, hotel, "alice"); d.Wait != time.Minute {
			t.Errorf("after a quiet day: %+v, want the first penalty", d)
		}
	})
}

func TestAccountFailuresAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		for range 3 {
			failures(t, g, hotel, "alice", 9)
			time.Sleep(time.Hour)
		}
	})
}

func TestFamiliarNetworks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		for i := range 21 {
			signIn(t, g, address(i), "alice")
		}
		failures(t, g, hotel, "alice", 10)
		if d := ask(g, address(20).Next(), "alice"); !d.Allowed {
			t.Errorf("the same /24: %+v", d)
		}
		if d := ask(g, address(1), "alice"); !d.Allowed {
			t.Errorf("the twentieth network back: %+v", d)
		}
		if d := ask(g, address(0), "alice"); d.Signal != AccountLimit {
			t.Errorf("the twenty-first: %+v", d)
		}
	})
}

// A phone repeats one stale password every 15 minutes for a month. Its household
// isn't limited, whatever strangers throw at the account; after ten guesses from there
// it is, but for those who have signed in from there before.
func TestStalePhone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		signIn(t, g, atHome, "alice")
		for i := range 30 * 24 * 4 {
			if d := fail(g, atHome, "alice", "last year's"); !d.Allowed {
				t.Fatalf("phone, after %d repeats: %+v", i, d)
			}
			for j := range 10 {
				fail(g, address(i), "alice", fmt.Sprint(i, j))
			}
			signIn(t, g, atHome, "bob")
			time.Sleep(15 * time.Minute)
		}
		failures(t, g, atHome, "alice", 10)
		if d := ask(g, atHome, "carol"); d.Signal != AddressLimit {
			t.Errorf("after ten guesses, somebody new at the address: %+v", d)
		}
		if d := ask(g, atHome, "bob"); !d.Allowed {
			t.Errorf("after ten guesses, somebody at home: %+v", d)
		}
	})
}

// A guest who guesses all day behind the owner's address doesn't lock the owner out, and
// has no more tries on the owner's account than its own budget.
func TestGuestBehindTheSameAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		signIn(t, g, atHome, "alice")
		for i := range 24 * 60 {
			fail(g, atHome, "bob", fmt.Sprint(i))
			signIn(t, g, atHome, "alice")
			time.Sleep(time.Minute)
		}
		tried := 0
		for i := range 1000 {
			if fail(g, atHome, "alice", fmt.Sprint(i)).Allowed {
				tried++
			}
		}
		if tried != 50 {
			t.Errorf("%d guesses at the owner's account from its home in a day", tried)
		}
		if d := ask(g, hotel, "alice"); !d.Allowed {
			t.Errorf("from elsewhere, afterwards: %+v", d)
		}
		time.Sleep(24 * time.Hour)
		if d := ask(g, atHome, "alice"); !d.Allowed {
			t.Errorf("a day later: %+v", d)
		}
	})
}

// Whoever starts this Gate anew may know more than it does.
func TestAcquaint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		failures(t, g, hotel, "alice", 10)
		if d := ask(g, atHome, "alice"); d.Signal != AccountLimit {
			t.Fatalf("before: %+v", d)
		}
		g.Acquaint(password(atHome, "alice"))
		if d := ask(g, atHome, "alice"); !d.Allowed {
			t.Errorf("after: %+v", d)
		}
		if d := ask(g, hotel, "alice"); d.Allowed {
			t.Errorf("the guesser: %+v", d)
		}
	})
}

func TestSameSecretCountsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		for i := range 30 { // from where nobody ever signed in
			if d := fail(g, hotel, "alice", "wrong"); d.Allowed != (i == 0) || !d.Allowed && d.Signal != Repeated {
				t.Fatalf("repeat %d: %+v", i, d)
			}
		}
		failures(t, g, hotel, "alice", 9)
		if d := ask(g, hotel, "alice"); d.Allowed {
			t.Error("one repeated and nine more didn't make ten")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{}) // the same secret elsewhere, or on another account, is another attempt
		for i := range 10 {
			if d := fail(g, address(i), "alice", "wrong"); !d.Allowed {
				t.Fatalf("%+v", d)
			}
			if d := fail(g, hotel, fmt.Sprint(i), "wrong"); !d.Allowed {
				t.Fatalf("%+v", d)
			}
		}
		if d := ask(g, address(99), "alice"); d.Signal != AccountLimit {
			t.Errorf("ten addresses: %+v", d)
		}
		if d := ask(g, hotel, "carol"); d.Signal != AddressLimit {
			t.Errorf("ten accounts: %+v", d)
		}
	})
}

func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{Observe: true, ConnectionsBeforeLogin: 1})
		failures(t, g, hotel, "alice", 10)
		if d := fail(g, hotel, "bob", "x"); d != (Decision{Allowed: true, Observed: AddressLimit}) {
			t.Errorf("address: %+v", d)
		}
		if d := fail(g, atHome, "alice", "x"); d != (Decision{Allowed: true, Observed: AccountLimit}) {
			t.Errorf("account: %+v", d)
		}
		g.Admit(hotel)
		if d, _ := g.Admit(hotel); d.Signal != ConnectionsBeforeLogin {
			t.Errorf("connections: %+v", d)
		}
	})
}

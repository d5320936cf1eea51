package policy

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// device returns an attempt's like with an app password.
func device(at Attempt) Attempt {
	at.AppPassword = true
	return at
}

// guess fails with the n-th wrong secret, and returns the decision about it.
func guess(g *Gate, at Attempt, n int) Decision {
	d, trial := try(g, at.with(fmt.Sprint("wrong ", n)))
	if trial != nil {
		trial.failWith(fmt.Sprint("wrong ", n, at.Account))
	}
	return d
}

// guesses fails until it may not, at most 1,000 times, and returns how often it could.
func guesses(g *Gate, at Attempt) (n int) {
	for n < 1000 && guess(g, at, n).Allowed {
		n++
	}
	return n
}

func consider(g *Gate, at Attempt) Decision {
	d, trial := try(g, at)
	trial.Release()
	return d
}

// An account that strangers have got penalised, or whose limit is all in flight, still
// has its app passwords judged, from anywhere.
func TestAppPasswordsIgnoreTheAccountsPenalty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{AccountFailures: 1})
		failures(t, g, address(1), "alice", 1)
		if d := ask(g, hotel, "alice"); d.Signal != AccountLimit {
			t.Fatalf("a password: %+v", d)
		}
		d, trial := try(g, device(password(hotel, "alice")))
		if !d.Allowed {
			t.Fatalf("an app password: %+v", d)
		}
		trial.Succeeded(nil)
		if d := ask(g, address(2), "alice"); d.Signal != AccountLimit {
			t.Errorf("a password, after a phone has signed in: %+v", d)
		}

		_, flying := try(g, password(address(3), "bob"))
		defer flying.Release()
		if d := consider(g, device(password(address(4), "bob"))); !d.Allowed {
			t.Errorf("an app password while the only try of a password is in flight: %+v", d)
		}
	})
}

// Wrong app passwords, in flight or ended, cost the account nothing.
func TestAppPasswordsDoNotChargeTheAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		for i := range 100 {
			guess(g, device(password(address(i), "alice")), i)
			_, trial := try(g, device(password(address(i), "alice")))
			defer trial.Release()
		}
		if d := ask(g, hotel, "alice"); !d.Allowed {
			t.Errorf("a password, after a hundred wrong app passwords: %+v", d)
		}
		if e := g.Explain(password(hotel, "alice")); e.AccountFailures != 0 {
			t.Errorf("%d failures of the account", e.AccountFailures)
		}
	})
}

// Nor does one that ends make room for a password.
func TestAppPasswordsLeaveTheAccountsPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{AccountFailures: 3})
		failures(t, g, address(1), "alice", 1)
		ends := []func(*Trial){(*Trial).Release, func(t *Trial) { t.Succeeded(nil) }, func(t *Trial) { t.failWith("x") }}
		for i, end := range ends {
			_, trial := try(g, device(password(address(2+i), "alice")))
			end(trial)
		}
		for range 2 {
			_, trial := try(g, password(hotel, "alice"))
			defer trial.Release()
		}
		if d := ask(g, hotel, "alice"); d.Signal != AccountLimit {
			t.Errorf("one failed, two in flight: %+v", d)
		}
	})
}

func TestAppPasswordsKeepTheAddressLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		if n := guesses(g, device(password(hotel, "alice"))); n != 10 {
			t.Errorf("%d tries from an unknown address in a minute, want 10", n)
		}
		if d := consider(g, device(password(hotel, "bob"))); d.Signal != AddressLimit {
			t.Errorf("another's: %+v", d)
		}
		if d := consider(g, password(hotel, "bob")); !d.Allowed {
			t.Errorf("a password, which has a count of its own: %+v", d)
		}
	})
}

func TestAppPasswordsInFlightKeepTheAddressLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		at := device(password(hotel, "alice"))
		for range 10 {
			_, trial := try(g, at)
			defer trial.Release()
		}
		if d, trial := try(g, at); d.Allowed || trial != nil {
			t.Errorf("the eleventh at once: %+v", d)
		}
	})
}

// A phone that comes back for weeks with a revoked app password, from where it never
// signed in as far as we remember, doesn't use up its household's tries.
func TestRevokedAppPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		phone := device(password(hotel, "alice"))
		for range 7 * 24 * 4 {
			if d := guess(g, phone, 1); !d.Allowed {
				t.Fatalf("%+v", d)
			}
			time.Sleep(15 * time.Minute)
		}
		if n := guesses(g, device(password(hotel, "bob"))); n != 10 {
			t.Errorf("%d tries left for others, want 10", n)
		}
	})
}

// What one kind of secret has learned gives the other neither a budget nor a bill.
func TestHomesAreOfOneKind(t *testing.T) {
	for _, owner := range []Attempt{password(atHome, "alice"), device(password(atHome, "alice"))} {
		thief := owner
		thief.AppPassword = !owner.AppPassword
		t.Run(fmt.Sprintf("app password %v", owner.AppPassword), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := calm(Limits{})
				_, trial := try(g, owner)
				trial.Succeeded(nil)
				if !g.Knows(owner) || g.Knows(thief) {
					t.Errorf("familiar: %v, to the other kind: %v", g.Knows(owner), g.Knows(thief))
				}
				if n := guesses(g, thief); n != 10 {
					t.Errorf("%d guesses with the other kind, want the address's 10", n)
				}
				want := 50
				if owner.AppPassword {
					want = 1000 // no budget: they can't be guessed
				}
				if n := guesses(g, owner); n != want {
					t.Errorf("%d tries of the owner's own, want %d", n, want)
				}
			})
		})
	}
}

// A thief with a phone's app password guesses the main password as any stranger does.
func TestStolenAppPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		tried := 0
		for i := range 20 { // wherever the thief goes, the app password signs in
			_, trial := try(g, device(password(address(i), "alice")))
			trial.Succeeded(nil)
			tried += guesses(g, password(address(i), "alice"))
		}
		if tried != 10 {
			t.Errorf("%d guesses of the main password, want the account's 10", tried)
		}
	})
}

// Strangers behind the same address guess all day, and the phone goes on.
func TestPhoneBehindAGuessedAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		phone := device(password(atHome, "alice"))
		g.Acquaint(phone)
		for i := range 24 * 60 {
			guess(g, password(atHome, "alice"), i)
			guess(g, device(password(atHome, "bob")), i)
			d, trial := try(g, phone)
			if !d.Allowed {
				t.Fatalf("after %d minutes: %+v", i, d)
			}
			trial.Succeeded(nil)
			time.Sleep(time.Minute)
		}
	})
}

func TestKnowsLeavesNothingBehind(t *testing.T) {
	g := calm(Limits{})
	if g.Knows(password(hotel, "alice")) || g.Knows(device(password(hotel, "alice"))) {
		t.Error("knows a stranger")
	}
	if n := g.familiar.len(); n != 0 {
		t.Errorf("%d accounts remembered", n)
	}
}

package auth

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// by is an attempt of a TLS client with that id.
func (at Attempt) by(client string) Attempt { at.Client = []byte(client); return at }

func inClientWorld(t *testing.T, from string, do func(t *testing.T, w *world)) {
	inWorld(t, func(t *testing.T, w *world) {
		w.Grant.From, w.Grant.ClientAbsolute, w.Grant.ClientIdle = from, 30*24*time.Hour, 7*24*time.Hour
		do(t, w)
	})
}

func TestGrantFollowsTheTLSClient(t *testing.T) {
	for _, from := range []string{FromClient, FromBoth} {
		inClientWorld(t, from, func(t *testing.T, w *world) {
			w.accepted(w.visit(with(password+w.code()).by("phone")), FactorCode)
			time.Sleep(6 * 24 * time.Hour)
			w.restart()
			w.accepted(w.visit(with(password).by("phone").from(elsewhere)), FactorGrant)
			time.Sleep(6 * 24 * time.Hour)
			w.refused(w.visit(with(password).by("stranger").from(elsewhere)), NoCode)
			w.refused(w.visit(with(password).from(elsewhere)), NoCode)
			w.refused(w.visit(with("another").by("phone").from(elsewhere)), WrongPassword)
			for range 3 {
				w.accepted(w.visit(with(password).by("phone").from(elsewhere)), FactorGrant)
				time.Sleep(6 * 24 * time.Hour)
			}
			w.refused(w.visit(with(password).by("phone").from(elsewhere)), NoCode) // the absolute end
		})
	}
}

func TestTLSClientsGrantIdles(t *testing.T) {
	inClientWorld(t, FromClient, func(t *testing.T, w *world) {
		w.accepted(w.visit(with(password+w.code()).by("phone")), FactorCode)
		time.Sleep(7*24*time.Hour + time.Minute)
		w.refused(w.visit(with(password).by("phone")), NoCode)
	})
}

func TestClientGrantsAreNoNetworkGrants(t *testing.T) {
	inClientWorld(t, FromClient, func(t *testing.T, w *world) {
		w.accepted(w.visit(with(password+w.code()).by("phone")), FactorCode)
		w.refused(w.visit(with(password).by("laptop")), NoCode) // at home, too
		w.Grant.From = FromNetwork                              // the setting counts, not the record
		w.refused(w.visit(with(password).by("phone")), NoCode)
	})
}

// TestParallelClients: each of a program's connections may be the one that is resumed later.
func TestParallelClients(t *testing.T) {
	for _, from := range []string{FromClient, FromBoth} {
		inClientWorld(t, from, func(t *testing.T, w *world) {
			secret := password + w.code()
			var all sync.WaitGroup
			for i := range 15 {
				all.Go(func() {
					if v := w.login(with(secret).by(fmt.Sprint("connection", i))); v.Outcome != Accepted {
						t.Errorf("connection %d: %+v", i, v)
					}
				})
			}
			all.Wait()
			time.Sleep(3 * time.Minute)
			for i := range 15 {
				w.accepted(w.visit(with(secret).by(fmt.Sprint("connection", i)).from(elsewhere)), FactorGrant)
			}
			// Whoever comes later with the same secret is another login.
			w.visit(with(secret).by("later"))
			w.refused(w.visit(with(secret).by("later").from(elsewhere)), Expired)
		})
	}
}

// TestNetworkGrantMakesNoClientGrant: a password that a network's grant lets in mustn't roam.
func TestNetworkGrantMakesNoClientGrant(t *testing.T) {
	inClientWorld(t, FromBoth, func(t *testing.T, w *world) {
		w.accepted(w.visit(with(password+w.code())), FactorCode)
		w.accepted(w.visit(with(password).by("neighbour").from(neighbour)), FactorGrant)
		w.refused(w.visit(with(password).by("neighbour").from(elsewhere)), NoCode)
	})
}

func TestGrantsAreBounded(t *testing.T) {
	inClientWorld(t, FromBoth, func(t *testing.T, w *world) {
		for i := range maxClientGrants + 10 {
			w.accepted(w.visit(with(password+w.code()).by(fmt.Sprint("client", i))), FactorCode)
			time.Sleep(30 * time.Second)
		}
		if n := w.records.count(); n != maxClientGrants+maxGrants {
			t.Errorf("%d grants, want %d and those of the logins and the network", n, maxClientGrants)
		}
		w.refused(w.visit(with(password).by("client0").from(elsewhere)), NoCode)
		w.accepted(w.visit(with(password).by(fmt.Sprint("client", maxClientGrants+9)).from(elsewhere)), FactorGrant)
	})
}

// TestChangedPasswordEndsItsGrants: all that know the old one, with their sessions, and none else.
func TestChangedPasswordEndsItsGrants(t *testing.T) {
	inClientWorld(t, FromBoth, func(t *testing.T, w *world) {
		var ended []Revocation
		w.Ended = func(r Revocation) { ended = append(ended, r) }
		v := w.login(with(password + w.code()).by("phone"))
		w.accepted(v, FactorCode)
		if len(v.Grants) != 3 {
			t.Fatalf("%d grants, want the login's, the network's and the client's", len(v.Grants))
		}
		w.refused(w.visit(with("a guess").by("phone")), WrongPassword)
		if len(ended) > 0 {
			t.Fatalf("a wrong guess ended %v", ended)
		}
		w.password = "new password"
		w.refused(w.visit(with(password).from(elsewhere)), WrongPassword)                                       // neither grant lets in from there
		if len(ended) != 1 || !ended[0].Ends("alice", v) || ended[0].Ends("bob", v) || w.records.count() != 1 { // the login's ends by itself
			t.Errorf("ended: %+v, %d grants left", ended, w.records.count())
		}
	})
}

func TestRevocationEnds(t *testing.T) {
	main, app := Verdict{Outcome: Accepted, Grants: []string{"g", "h"}}, Verdict{Outcome: Accepted, AppPassword: "p"}
	bare := Verdict{Outcome: Accepted}
	for _, test := range []struct {
		name            string
		r               Revocation
		main, app, bare bool
	}{
		{"nothing", Revocation{Account: "alice"}, false, false, false},
		{"all", Revocation{Account: "alice", All: true}, true, true, true},
		{"main logins", Revocation{Account: "alice", MainLogins: true}, true, false, true},
		{"all grants", Revocation{Account: "alice", AllGrants: true}, true, false, false},
		{"a grant", Revocation{Account: "alice", Grants: []string{"x", "h"}}, true, false, false},
		{"another grant", Revocation{Account: "alice", Grants: []string{"x"}}, false, false, false},
		{"an app password", Revocation{Account: "alice", AppPassword: "p"}, false, true, false},
		{"another app password", Revocation{Account: "alice", AppPassword: "q"}, false, false, false},
		{"another account", Revocation{Account: "bob", All: true, MainLogins: true, AllGrants: true, Grants: []string{"g"}, AppPassword: "p"}, false, false, false},
	} {
		if m, a, b := test.r.Ends("alice", main), test.r.Ends("alice", app), test.r.Ends("alice", bare); m != test.main || a != test.app || b != test.bare {
			t.Errorf("%s: %v %v %v", test.name, m, a, b)
		}
	}
}

// TestAnotherCodeMakesNoClientGrant: a neighbour with the password and a code that nobody used is
// let in by the network's grant, and mustn't get one that roams.
func TestAnotherCodeMakesNoClientGrant(t *testing.T) {
	inClientWorld(t, FromBoth, func(t *testing.T, w *world) {
		unused := w.code()
		time.Sleep(45 * time.Second)
		w.accepted(w.visit(with(password+w.code()).by("phone")), FactorCode)
		w.accepted(w.visit(with(password+unused).by("thief").from(neighbour)), FactorGrant)
		w.refused(w.visit(with(password).by("thief").from(elsewhere)), NoCode)
		// Nor does the very secret, from the address next door.
		w.accepted(w.visit(with(password+w.code()).by("second").from(neighbour)), FactorGrant)
		w.refused(w.visit(with(password).by("second").from(elsewhere)), NoCode)
	})
}

// revokedMeanwhile takes all grants away when one is about to be written.
type revokedMeanwhile struct{ *fakeRecords }

func (r revokedMeanwhile) PutGrant(ctx context.Context, g Grant) error {
	if _, err := r.RemoveGrants(ctx, g.Account); err != nil {
		return err
	}
	return r.fakeRecords.PutGrant(ctx, g)
}

func TestRevokedWhileAnotherConnectionComes(t *testing.T) {
	inClientWorld(t, FromBoth, func(t *testing.T, w *world) {
		secret := password + w.code()
		w.accepted(w.visit(with(secret).by("first")), FactorCode)
		w.Records = revokedMeanwhile{w.records}
		w.refused(w.visit(with(secret).by("second")), Expired)
		if n := w.records.count(); n != 0 {
			t.Errorf("%d grants outlive their revocation", n)
		}
	})
}

// TestRepeatedSecret: who knows the password doesn't get the same codes tried until one is right.
func TestRepeatedSecret(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		at := with(password + w.code())
		at.Repeated = true
		w.refused(w.visit(at), Expired)
		at.Repeated = false
		w.accepted(w.visit(at), FactorCode)
	})
}

// TestEvictedGrantsSessionsEndWithTheRest: the record of a grant may be gone before its session.
func TestEvictedGrantsSessionsEndWithTheRest(t *testing.T) {
	inClientWorld(t, FromBoth, func(t *testing.T, w *world) {
		first := w.login(with(password + w.code()).by("first").from(elsewhere))
		w.accepted(first, FactorCode)
		for i := range maxClientGrants + maxGrants {
			time.Sleep(30 * time.Second)
			w.accepted(w.visit(with(password+w.code()).by(fmt.Sprint("client", i))), FactorCode)
		}
		d := w.directory()
		var ended []Revocation
		d.Ended = func(r Revocation) { ended = append(ended, r) }
		if _, err := d.RevokeGrants(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		if len(ended) != 1 || !ended[0].Ends("alice", first) {
			t.Errorf("the session of an evicted grant goes on: %+v", ended)
		}
	})
}

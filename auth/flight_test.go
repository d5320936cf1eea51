package auth

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestFreshCodeAskedFor(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		fresh := func(secret string) Attempt { at := with(secret); at.FreshCode = true; return at }
		w.accepted(w.visit(with(password+w.code())), FactorCode)
		time.Sleep(5 * time.Minute)
		w.refused(w.visit(fresh(password)), NoCode)
		code := w.code()
		for i, v := range w.parallel(15, fresh(password+code)) {
			if v.Outcome != Accepted {
				t.Errorf("connection %d: %+v", i, v)
			}
		}
		w.refused(w.visit(fresh(password)), NoCode)
		w.accepted(w.visit(fresh(password+code)), FactorGrant)
		time.Sleep(sameLogin)
		w.refused(w.visit(fresh(password+code)), ReplayedCode)
		w.accepted(w.visit(with(password)), FactorGrant)
	})
}

func (w *world) parallel(n int, at Attempt) []Verdict {
	verdicts := make([]Verdict, n)
	var all sync.WaitGroup
	for i := range verdicts {
		all.Go(func() { verdicts[i] = w.login(at) })
	}
	all.Wait()
	if len(w.flights.flying) != 0 {
		w.t.Error("a flight is left over")
	}
	return verdicts
}

func TestFifteenConnectionsAtOnce(t *testing.T) {
	for _, from := range []string{FromNetwork, "off"} {
		t.Run(from, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.Grant.From = from
				code := w.code()
				factors := map[Factor]int{}
				begin := time.Now()
				for _, v := range w.parallel(15, with(password+code)) {
					if v.Outcome != Accepted {
						t.Errorf("%+v", v)
					}
					factors[v.Factor]++
				}
				if factors[FactorCode] != 1 || factors[FactorGrant] != 14 || w.records.spent != 1 {
					t.Errorf("%v, %d steps spent", factors, w.records.spent)
				}
				// A second for the first, and one for all that waited for it.
				if took := time.Since(begin); took != 2*time.Second {
					t.Errorf("the connections waited for each other: %v", took)
				}
				w.refused(w.visit(with(password+code).from(elsewhere)), ReplayedCode)
			})
		})
	}
}

func TestFifteenWrongPasswordsAreOneQuestion(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, v := range w.parallel(15, with("guess"+w.code())) {
			w.refused(v, WrongPassword)
		}
		if len(w.asked) != 1 || w.records.spent != 0 {
			t.Errorf("%d questions, %d steps spent", len(w.asked), w.records.spent)
		}
	})
}

func TestTwoPlacesAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		at := with(password + w.code())
		verdicts := make([]Verdict, 2)
		var both sync.WaitGroup
		both.Go(func() { verdicts[0] = w.login(at.from(home)) })
		both.Go(func() { verdicts[1] = w.login(at.from(elsewhere)) })
		both.Wait()
		slices.SortFunc(verdicts, func(a, b Verdict) int { return int(b.Outcome) - int(a.Outcome) })
		w.accepted(verdicts[0], FactorCode)
		w.refused(verdicts[1], ReplayedCode)
	})
}

// TestTwoMachinesAtOnce has two authenticators on one store, which share no flights.
func TestTwoMachinesAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		at := Attempt{Account: "alice", Secret: Secret(password + w.code()), Source: home}
		other := &Authenticator{Records: w.Records, Keys: w.Keys, Grant: w.Grant}
		first, err := w.Examine(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		defer first.Release()
		second, err := other.Examine(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Release()
		v, err := first.Accept(t.Context())
		w.accepted(v, FactorCode)
		if err != nil {
			t.Error(err)
		}
		v, err = second.Accept(t.Context())
		w.accepted(v, FactorGrant)
		if err != nil || w.records.spent != 1 {
			t.Errorf("%v, %d steps spent", err, w.records.spent)
		}
	})
}

func TestAbandonedLeader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		at := Attempt{Account: "alice", Secret: Secret(password + w.code()), Source: home}
		leader, err := w.Examine(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		var verdicts []Verdict
		var all sync.WaitGroup
		all.Go(func() { verdicts = w.parallel(3, at) })
		short, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := w.Examine(short, at); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		if len(w.asked) != 0 {
			t.Error("somebody overtook the leader")
		}
		leader.Release() // its upstream failed
		leader.Release()
		all.Wait()
		for _, v := range verdicts {
			if v.Outcome != Accepted {
				t.Errorf("%+v", v)
			}
		}
		if w.records.spent != 1 {
			t.Errorf("%d steps spent", w.records.spent)
		}
	})
}

// TestLostRaceAgainstElsewhere has the code spent by somebody else in between: the grant
// that home has had for a while still counts, but not where a fresh code is asked for.
func TestLostRaceAgainstElsewhere(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		inWorld(t, func(t *testing.T, w *world) {
			w.accepted(w.visit(with(password+w.code())), FactorCode)
			time.Sleep(5 * time.Minute)
			at := with(password + w.code()).of("alice").from(home)
			at.FreshCode = fresh
			claim, err := w.Examine(t.Context(), at)
			if err != nil {
				t.Fatal(err)
			}
			defer claim.Release()
			w.accepted(w.visit(at.from(elsewhere)), FactorCode)
			v, err := claim.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if fresh {
				w.refused(v, ReplayedCode)
			} else {
				w.accepted(v, FactorGrant)
			}
		})
	}
}

package auth

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// withRecovery gives alice recovery codes that the test knows.
func (w *world) withRecovery() []string {
	w.t.Helper()
	codes, err := w.directory().RenewRecovery(w.t.Context(), "alice")
	if err != nil {
		w.t.Fatal(err)
	}
	return codes
}

func TestRecoveryCodes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		codes := w.withRecovery()
		if len(codes) != 10 || len(slices.Compact(slices.Sorted(slices.Values(codes)))) != 10 {
			t.Fatalf("got %d codes, want ten different ones", len(codes))
		}
		for i, code := range codes {
			w.restart() // they count once across restarts, too
			v := w.visit(with(password + code).from(elsewhere))
			w.accepted(v, FactorRecovery)
			if v.RecoveryLeft != 9-i {
				t.Errorf("after %d codes: %d are left", i+1, v.RecoveryLeft)
			}
			time.Sleep(13 * time.Hour) // the grant ends
			w.refused(w.visit(with(password+code).from(elsewhere)), Expired)
			if asked := w.asked[len(w.asked)-1]; asked != password {
				t.Error("the upstream was asked with the used code")
			}
		}
	})
}

func TestRecoveryCodeIsTakenAsTyped(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		codes := w.withRecovery()
		w.accepted(w.visit(with(password+strings.ToUpper(codes[0]))), FactorRecovery)
		w.CodeSeparator = "-"
		w.accepted(w.visit(with(password+"-"+codes[1])), FactorRecovery)
		w.CodeSeparator = ","
		w.accepted(w.visit(with(password+","+codes[2])), FactorRecovery)
		w.refused(w.visit(with(password+codes[3])), WrongPassword) // no separator: it belongs to the password
		w.accepted(w.visit(with(password+","+codes[3])), FactorRecovery)
	})
}

func TestWhatOnlyLooksLikeARecoveryCode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.withRecovery()
		w.password = "correct-horse-" + "abcde-fghjk"
		w.refused(w.visit(with(w.password)), NoCode)
		if asked := w.asked[0]; asked != w.password {
			t.Error("the upstream was asked for a part of the password")
		}
		w.accepted(w.visit(with(w.password+w.code())), FactorCode)
		w.accepted(w.visit(with(w.password)), FactorGrant)
	})
}

func TestRecoveryCodeOnParallelConnections(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		code := w.withRecovery()[0]
		var all sync.WaitGroup
		var mu sync.Mutex
		got := map[Factor]int{}
		for range 15 {
			all.Go(func() {
				v := w.login(with(password + code))
				mu.Lock()
				defer mu.Unlock()
				got[v.Factor]++
			})
		}
		all.Wait()
		if got[FactorRecovery] != 1 || got[FactorGrant] != 14 {
			t.Errorf("got %v", got)
		}
		w.refused(w.visit(with(password+code).from(elsewhere)), ReplayedCode)
	})
}

func TestRecoveryCodesGoWithTheirAuthenticator(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		old := w.withRecovery()
		w.withRecovery()
		w.refused(w.visit(with(password+old[0])), WrongPassword)
		d := w.directory()
		if err := d.Reset(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		again, err := d.Enroll(t.Context(), "alice", true)
		if err != nil {
			t.Fatal(err)
		}
		w.accepted(w.visit(with(password+again.RecoveryCodes[0])), FactorRecovery)
		if _, err := d.Enroll(t.Context(), "bob", true); err != nil {
			t.Fatal(err)
		}
		w.refused(w.visit(with(password+again.RecoveryCodes[1]).of("bob")), WrongPassword)
	})
}

// spentMeanwhile spends a recovery code between the two reads of a login that brings it, too.
type spentMeanwhile struct {
	*fakeRecords
	spend func()
}

func (r spentMeanwhile) RecoveryCodes(ctx context.Context, totp string) ([]RecoveryCode, error) {
	r.spend()
	return r.fakeRecords.RecoveryCodes(ctx, totp)
}

func TestRecoveryCodeSpentWhileWeLook(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		code := w.withRecovery()[0]
		other := &world{Authenticator: &Authenticator{Records: w.records, Keys: w.Keys, Grant: w.Grant}, t: t, records: w.records, password: password}
		w.Records = spentMeanwhile{w.records, sync.OnceFunc(func() { other.accepted(other.login(with(password+code)), FactorRecovery) })}
		w.accepted(w.login(with(password+code)), FactorGrant)
	})
}

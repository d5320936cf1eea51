package auth

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
)

func TestCodeThenPasswordAlone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.refused(w.visit(with(password)), NoCode)
		code := w.code()
		w.accepted(w.visit(with(password+code)), FactorCode)
		w.accepted(w.visit(with(password)), FactorGrant)
		w.accepted(w.visit(with(password+code)), FactorGrant)
		w.accepted(w.visit(with(password).from(neighbour)), FactorGrant)
		w.refused(w.visit(with(password).from(elsewhere)), NoCode)
		w.refused(w.visit(with(password+code).from(elsewhere)), ReplayedCode)
		time.Sleep(10 * time.Minute)
		w.accepted(w.visit(with(password+code)), FactorGrant)
		w.refused(w.visit(with(password+code).from(elsewhere)), Expired)
		for _, asked := range w.asked {
			if asked != password {
				t.Errorf("the upstream was asked %q", asked)
			}
		}
	})
}

func TestCodeCountsOnceAlsoAfterARestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		code := w.code()
		w.accepted(w.visit(with(password+code)), FactorCode)
		w.restart()
		w.refused(w.visit(with(password+code).from(elsewhere)), ReplayedCode)
		w.accepted(w.visit(with(password+code)), FactorGrant)
		if w.records.spent != 1 {
			t.Errorf("%d steps spent", w.records.spent)
		}
	})
}

func TestClockDrift(t *testing.T) {
	for _, test := range []struct {
		drift time.Duration
		ok    bool
	}{{-60 * time.Second, false}, {-30 * time.Second, true}, {0, true}, {30 * time.Second, true}, {60 * time.Second, false}} {
		inWorld(t, func(t *testing.T, w *world) {
			code, err := totp.GenerateCode(w.shared, time.Now().Add(test.drift))
			if err != nil {
				t.Fatal(err)
			}
			switch v := w.visit(with(password + code)); {
			case test.ok:
				w.accepted(v, FactorCode)
			case test.drift < 0:
				w.refused(v, Expired) // it was right a while ago
			default:
				w.refused(v, WrongCode)
			}
		})
	}
}

func TestWrongPasswordSpendsNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		code := w.code()
		w.refused(w.visit(with("guess"+code)), WrongPassword)
		w.accepted(w.visit(with(password+code)), FactorCode)
	})
}

func TestGuessedCodeIsNoStaleOne(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		old := w.code()
		w.accepted(w.visit(with(password+old)), FactorCode)
		time.Sleep(48 * time.Hour) // longer than staleDay: only the grant tells
		guess := w.neverRight()
		w.refused(w.visit(with(password+old)), Expired)
		w.refused(w.visit(with(password+guess)), WrongCode)
		w.refused(w.visit(with("guess"+old)), WrongPassword)
	})
}

func TestPasswordThatEndsInDigits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.password = "sesame123456"
		w.accepted(w.visit(with(w.password+w.code())), FactorCode)
		w.accepted(w.visit(with(w.password)), FactorGrant)
		w.accepted(w.visit(Attempt{Account: "bob", Secret: Secret(w.password), Mode: Optional}), FactorNone)
		for _, asked := range w.asked {
			if asked != w.password {
				t.Errorf("the upstream was asked %q", asked)
			}
		}
	})
}

func TestCodeSeparator(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.CodeSeparator = ","
		w.refused(w.visit(with(password+w.code())), WrongPassword)
		w.accepted(w.visit(with(password+","+w.code())), FactorCode)
	})
}

func TestModes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		bob := Attempt{Account: "bob", Secret: Secret(password)}
		w.refused(w.visit(bob), NotEnrolled)
		w.refused(w.visit(bob.in("nonsense")), NotEnrolled)
		w.accepted(w.visit(bob.in(Optional)), FactorNone)
		observed := func(v Verdict, would Reason) {
			t.Helper()
			if v.Outcome != Accepted || v.Factor != FactorNone || v.WouldRefuse != would {
				t.Errorf("got %+v, want let in although %s", v, would)
			}
		}
		observed(w.visit(bob.in(Observe)), NotEnrolled)
		w.refused(w.visit(Attempt{Account: "bob", Secret: Secret("guess"), Mode: Observe}), WrongPassword)

		w.refused(w.visit(with(password).in(Optional)), NoCode)
		observed(w.visit(with(password).in(Observe)), NoCode)
		code := w.code()
		w.accepted(w.visit(with(password+code).in(Observe)), FactorCode)
		observed(w.visit(with(password+code).in(Observe).from(elsewhere)), ReplayedCode)
		time.Sleep(24 * time.Hour)
		observed(w.visit(with(password+code).in(Observe)), Expired)
	})
}

func TestPendingEnrolmentAsksNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		directory := Directory{Records: w.records, Keys: w.Keys, Issuer: "x"}
		if _, err := directory.Enroll(t.Context(), "bob", false); err != nil {
			t.Fatal(err)
		}
		w.accepted(w.visit(Attempt{Account: "bob", Secret: Secret(password), Mode: Optional}), FactorNone)
		w.refused(w.visit(Attempt{Account: "bob", Secret: Secret(password)}), NotEnrolled)
	})
}

func TestStoreTroubleLetsNobodyIn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		at := Attempt{Account: "alice", Secret: Secret(password + w.code()), Source: home, Mode: Observe}
		claim, err := w.Examine(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		w.records.setDown(true)
		if v, err := claim.Accept(t.Context()); v.Outcome != Refused || !errors.Is(err, errDown) {
			t.Errorf("%+v, %v", v, err)
		}
		claim.Release()
		if claim, err := w.Examine(t.Context(), at); claim != nil || !errors.Is(err, errDown) {
			t.Errorf("%v, %v", claim, err)
		}
		w.records.setDown(false)
		w.accepted(w.visit(at), FactorCode) // nothing was spent

		account := w.records.accounts["alice"]
		account.TOTP.Sealed[40] ^= 1
		if claim, err := w.Examine(t.Context(), with(password+"123456").from(home).of("alice")); err == nil {
			t.Errorf("%v with a tampered authenticator", claim)
		}
	})
}

func TestNothingToAsk(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.refused(w.visit(Attempt{Account: "bob", Mode: Observe}), WrongPassword)
		if len(w.asked) != 0 {
			t.Error("the upstream was asked with an empty password")
		}
		code := w.code() // alone it is a password, if a wrong one
		w.refused(w.visit(with(code)), WrongPassword)
		if !slices.Equal(w.asked, []string{code}) || w.records.spent != 0 {
			t.Error("a code without a password was taken for more")
		}
		if _, err := w.Examine(t.Context(), Attempt{Account: "alice", Secret: Secret(password)}); err == nil {
			t.Error("examined without a source")
		}
	})
}

func TestVerdictIsGivenOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		claim, err := w.Examine(t.Context(), with(password+w.code()).from(home).of("alice"))
		if err != nil {
			t.Fatal(err)
		}
		first, _ := claim.Accept(t.Context())
		second, _ := claim.Accept(t.Context())
		third, _ := claim.Deny(t.Context())
		decided, ok := claim.Decided()
		claim.Release()
		if first.Outcome != Accepted || !reflect.DeepEqual(second, first) || !reflect.DeepEqual(third, first) || !reflect.DeepEqual(decided, first) || !ok {
			t.Error("the verdict changed")
		}
		if open := w.stays.byGrant[first.Grants[0]].open; open != 1 {
			t.Errorf("%d sessions for one login", open)
		}
	})
}

package auth

import (
	"testing"
	"time"
)

// TestWorth: whoever can't be let in whatever the upstream says is known before it is asked.
func TestWorth(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		claim := func(at Attempt) *Claim {
			t.Helper()
			if at.Account == "" {
				at.Account = "alice"
			}
			if !at.Source.IsValid() {
				at.Source = home
			}
			c, err := w.Examine(t.Context(), at)
			if err != nil {
				t.Fatal(err)
			}
			c.Release()
			return c
		}
		worth := func(what string, at Attempt, want Worth) {
			t.Helper()
			if got := claim(at).Worth(); got != want {
				t.Errorf("%s: worth %d, want %d", what, got, want)
			}
		}
		worth("password alone", with(password), WorthNothing)
		worth("password and wrong code", with(password+w.neverRight()), WorthNothing)
		worth("password and code", with(password+w.code()), WorthCode)
		worth("any password and code", with("guess"+w.code()), WorthCode)
		worth("only observed", with(password).in(Observe), WorthPassword)
		worth("nobody's, required", with(password).of("bob").in(Required), WorthNothing)
		worth("nobody's, optional", with(password).of("bob").in(Optional), WorthPassword)

		w.accepted(w.visit(with(password+w.code())), FactorCode)
		worth("under a grant", with(password), WorthGrant)
		time.Sleep(sameLogin)
		fresh := with(password)
		fresh.FreshCode = true
		worth("a grant where a fresh code is asked for", fresh, WorthNothing)
		if claim(with(password).from(elsewhere)).IsFamiliar() || !claim(with(password)).IsFamiliar() {
			t.Error("familiar is where the grant was given, and nowhere else")
		}
		if !claim(with(password)).IsKnown() || claim(with(password).of("bob")).IsKnown() {
			t.Error("known is who has a record, and nobody else")
		}

		if !claim(fresh).IsRight() || claim(with("guess")).IsRight() {
			t.Error("right is what a grant was given for, and nothing else")
		}

		app := w.issue(NewAppPassword{Password: Secret(password)})
		worth("app password", with(app.Password), WorthGrant)
	})
}

// TestBriefGrants: in times of alarm a grant lasts a quarter of its time.
func TestBriefGrants(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.Grant.Idle = 24 * time.Hour
		at := with(password + w.code())
		at.Brief = true
		w.accepted(w.visit(at), FactorCode)
		time.Sleep(3*time.Hour - time.Minute)
		w.accepted(w.visit(with(password)), FactorGrant)
		time.Sleep(time.Minute)
		w.refused(w.visit(with(password)), NoCode)
	})
}

func TestFront(t *testing.T) {
	for _, tt := range []struct{ separator, secret, front string }{
		{"", "sesame123456", "sesame"},
		{"", "sesame", ""},
		{"", "123456", ""},
		{",", "sesame,123456", "sesame"},
		{",", "sesame123456", ""},
	} {
		a := &Authenticator{CodeSeparator: tt.separator}
		if got := string(a.Front(Secret(tt.secret))); got != tt.front {
			t.Errorf("%q with separator %q: %q, want %q", tt.secret, tt.separator, got, tt.front)
		}
	}
}

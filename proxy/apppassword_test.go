package proxy

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imapwarden/auth"
	"imapwarden/policy"
)

// An app password lets in, without an enrolment, and the upstream sees the account's own password.
func TestAppPassword(t *testing.T) {
	in(t, func(r *rig) {
		p := r.issue(auth.NewAppPassword{Account: "alice", Password: auth.Secret("secret")})
		for _, form := range []string{
			p.Password, strings.ToUpper(p.Password), strings.ReplaceAll(p.Password, "-", " "),
			strings.ReplaceAll(p.Password, "-", ""), strings.ToUpper(strings.ReplaceAll(p.Password, "-", "")),
		} {
			r.enter(elsewhere, "alice", form).hangUp()
			if got := r.upstream.last(); got != "\x00alice\x00secret" {
				t.Error("the upstream saw something else than the account's own password")
			}
			if e := r.lastEvent(); e.Factor != "app-password" || e.Detail != "app password "+p.ID {
				t.Errorf("audit: %+v", e)
			}
		}
		if got := r.answer(elsewhere, "alice", "secret"); got != failed {
			t.Errorf("an app password opens the way for the main password: %s", got)
		}
	})
}

// An app password made without the account's password works from the next good login on, and one
// whose vault is outdated works again then.
func TestAppPasswordIsSealedAtLogin(t *testing.T) {
	in(t, func(r *rig) {
		secret := r.enroll("alice")
		p := r.issue(auth.NewAppPassword{Account: "alice"})
		for _, password := range []string{"secret", "changed"} {
			r.upstream.password = password
			if got := r.answer(elsewhere, "alice", p.Password); got != failed {
				t.Errorf("before a login with %q: %s", password, got)
			}
			if got := r.answer(home, "alice", password); got != failed { // without a code
				t.Fatal(got)
			}
			if got := r.answer(elsewhere, "alice", p.Password); got != failed {
				t.Errorf("a refused login has sealed %q: %s", password, got)
			}
			r.enter(home, "alice", password+r.code(secret)).hangUp()
			r.enter(elsewhere, "alice", p.Password).hangUp()
			if got := r.upstream.last(); got != "\x00alice\x00"+password {
				t.Error("the upstream saw something else than the account's own password")
			}
			time.Sleep(time.Minute) // for another code
		}
	})
}

// A vault that the upstream has refused isn't tried again: its limits would take that for guessing.
func TestOutdatedVaultIsTriedOnce(t *testing.T) {
	in(t, func(r *rig) {
		p := r.issue(auth.NewAppPassword{Account: "alice", Password: auth.Secret("old")})
		for range 5 {
			if got := r.answer(home, "alice", p.Password); got != failed {
				t.Error(got)
			}
		}
		if _, logins := r.upstream.count(); logins != 1 {
			t.Errorf("the upstream was asked %d times", logins)
		}
	})
}

// No app password is ever sent on, whatever is wrong with it.
func TestAppPasswordsStayHere(t *testing.T) {
	in(t, func(r *rig) {
		good := r.issue(auth.NewAppPassword{Account: "alice"}).Password
		for _, secret := range []string{good, mistyped(good), neverIssued(r), strings.ToUpper(neverIssued(r))} {
			if got := r.answer(home, "alice", secret); got != failed {
				t.Error(got)
			}
		}
		if dials, _ := r.upstream.count(); dials > 0 {
			t.Errorf("the upstream was asked %d times", dials)
		}
	})
}

// Guesses at the main password, from the same network too, don't stop a phone.
func TestAppPasswordIsNotHinderedByGuesses(t *testing.T) {
	in(t, func(r *rig) {
		r.RefusalDelay = 0 // the limits refill with time
		p := r.issue(auth.NewAppPassword{Account: "alice", Password: auth.Secret("secret")})
		for i := range 10 {
			r.answer(fmt.Sprintf("203.0.113.%d:4000", i+1), "alice", fmt.Sprint("guess", i))
		}
		if got := r.answer("203.0.113.50:4000", "alice", "secret"); !strings.HasPrefix(got, "l NO [UNAVAILABLE]") {
			t.Fatalf("the main password isn't limited: %s", got)
		}
		r.enter("203.0.113.50:4000", "alice", p.Password).hangUp()
		if got := r.answer("203.0.113.50:4000", "alice", "secret"); !strings.HasPrefix(got, "l NO [UNAVAILABLE]") {
			t.Errorf("an app password has lifted the limit of the main password: %s", got)
		}
	})
}

// What is wrong with app passwords is never charged to the account; to the address, where it is
// a guess.
func TestChargesForAppPasswords(t *testing.T) {
	tests := []struct {
		name    string
		secret  func(r *rig, good string) string
		limited bool
	}{
		{"mistyped", func(_ *rig, good string) string { return mistyped(good) }, false},
		{"unknown", func(r *rig, _ string) string { return neverIssued(r) }, true},
		{"without a vault", func(r *rig, _ string) string { return r.issue(auth.NewAppPassword{Account: "alice"}).Password }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in(t, func(r *rig) {
				r.RefusalDelay = 0
				secret := r.enroll("alice")
				good := r.issue(auth.NewAppPassword{Account: "alice", Password: auth.Secret("secret")}).Password
				for i := range 12 {
					want := failed
					if test.limited && i >= 10 {
						want = "l NO [UNAVAILABLE] Too many failed logins, try again later"
					}
					if got := r.answer(elsewhere, "alice", test.secret(r, good)); got != want {
						t.Errorf("number %d: %s", i, got)
					}
				}
				if got := r.answer(elsewhere, "alice", good); strings.HasPrefix(got, "l OK") == test.limited {
					t.Errorf("the good one: %s", got)
				}
				r.enter("203.0.113.77:4000", "alice", "secret"+r.code(secret)).hangUp() // the same network, another address
			})
		})
	}
}

// After a restart too: strangers behind the same address don't lock a phone out that was here.
func TestAppPasswordIsRememberedAfterRestart(t *testing.T) {
	in(t, func(r *rig) {
		r.RefusalDelay = 0
		good := r.issue(auth.NewAppPassword{Account: "alice", Password: auth.Secret("secret")}).Password
		r.enter(home, "alice", good).hangUp()
		r.Policy = &policy.Gate{} // it has forgotten all
		for i := range 12 {
			r.answer(home, "bob", fmt.Sprint("guess", i))
		}
		if got := r.answer(home, "bob", "another"); !strings.HasPrefix(got, "l NO [UNAVAILABLE]") {
			t.Fatalf("the address isn't limited: %s", got)
		}
		r.enter(home, "alice", good).hangUp()
	})
}

// People type passwords into the wrong field. Such a name is refused and is nowhere afterwards.
func TestAppPasswordAsUserName(t *testing.T) {
	in(t, func(r *rig) {
		good := r.issue(auth.NewAppPassword{Account: "alice", Password: auth.Secret("secret")}).Password
		names := []string{good, strings.ToUpper(good), strings.ReplaceAll(good, "-", ""), mistyped(good)}
		for _, name := range names {
			p := r.connectTLS(home)
			p.send("a LOGIN %s secret\r\n", name)
			p.want(`a NO \[AUTHENTICATIONFAILED\] Authentication failed`)
			p.send("b AUTHENTICATE PLAIN %s\r\n", base64.StdEncoding.EncodeToString([]byte(name+"\x00alice\x00secret")))
			p.want(`b NO \[AUTHENTICATIONFAILED\] Authentication failed`)
			p.hangUp()
		}
		r.wantNowhere(names...)
	})
}

// Nor is one that lets in, or is refused, in the log, the audit, or the list of sessions.
func TestNoAppPasswordAnywhere(t *testing.T) {
	in(t, func(r *rig) {
		good := r.issue(auth.NewAppPassword{Account: "alice", Password: auth.Secret("hunter2")}).Password
		r.upstream.password = "hunter2"
		p := r.enter(home, "alice", good)
		r.wantNowhere(good, "hunter2")
		p.hangUp()
		r.answer(home, "alice", mistyped(good))
		r.answer(home, "bob", good)
		r.upstream.password = "changed"
		r.answer(home, "alice", good)
		r.wantNowhere(good, mistyped(good), "hunter2")
	})
}

// wantNowhere fails where one of the secrets is in the log, the audit, or the list of sessions.
func (r *rig) wantNowhere(secrets ...string) {
	r.t.Helper()
	synctest.Wait()
	var all strings.Builder
	for _, entry := range r.logs.All() {
		fmt.Fprintln(&all, entry.Message, entry.ContextMap())
	}
	for _, e := range r.audit() {
		fmt.Fprintf(&all, "%+v\n", e)
	}
	fmt.Fprintf(&all, "%+v\n", r.Sessions())
	for _, secret := range secrets {
		if strings.Contains(strings.ToLower(all.String()), strings.ToLower(secret)) {
			r.t.Error("a secret is in the log, the audit, or the list of sessions")
		}
	}
}

// A read-only session opens mailboxes with EXAMINE and changes nothing, whether the app password
// or a rule says so.
func TestReadOnly(t *testing.T) {
	for _, by := range []string{"app password", "rule", "nobody"} {
		t.Run(by, func(t *testing.T) {
			in(t, func(r *rig) {
				readOnly := by != "nobody"
				secret := r.issue(auth.NewAppPassword{
					Account: "alice", Password: auth.Secret("secret"), ReadOnly: by == "app password",
				}).Password
				if by == "rule" {
					r.Rules = policy.Rules{{Name: "look only", Accounts: []string{"alice"}, ReadOnly: true}}
				}
				p := r.enter(home, "alice", secret)
				synctest.Wait()
				if list := r.Sessions(); len(list) != 1 || list[0].ReadOnly != readOnly {
					t.Errorf("sessions: %+v", list)
				}
				p.send("a SELECT INBOX\r\nb STORE 1 +FLAGS (\\Deleted)\r\nc FETCH 1 FLAGS\r\n")
				if readOnly {
					p.want(`\* ECHO EXAMINE INBOX`, "a OK done", `\* ECHO REFUSED-BY-IMAPWARDEN-READ-ONLY`, "b OK done")
				} else {
					p.want(`\* ECHO SELECT INBOX`, "a OK done", `\* ECHO STORE 1 \+FLAGS \(\\Deleted\)`, "b OK done")
				}
				p.want(`\* ECHO FETCH 1 FLAGS`, "c OK done")
				p.hangUp()
				if r.upstream.heard("SELECT") == readOnly || r.upstream.heard("STORE") == readOnly {
					t.Error("the upstream has heard something else")
				}
			})
		})
	}
}

// A recovery code stands for a code, once, and the audit says how many are left.
func TestRecoveryCode(t *testing.T) {
	in(t, func(r *rig) {
		alice := r.enrolment("alice")
		for i, code := range alice.RecoveryCodes {
			from := fmt.Sprintf("198.51.%d.7:4000", i)
			r.enter(from, "alice", "secret"+strings.ToUpper(code)).hangUp()
			e := r.lastEvent()
			left := len(alice.RecoveryCodes) - i - 1
			if e.Factor != "recovery" || !strings.Contains(e.Detail, fmt.Sprintf("%d recovery codes left", left)) {
				t.Errorf("audit: %+v", e)
			}
			if warned := strings.HasPrefix(e.Detail, "warning"); warned != (left <= 3) {
				t.Errorf("with %d left: %q", left, e.Detail)
			}
			r.enter(from, "alice", "secret").hangUp() // it has opened a grant
			if got := r.answer(elsewhere, "alice", "secret"+code); got != failed {
				t.Errorf("a used one: %s", got)
			}
		}
	})
}

// The store learns of an app password's last use, with the program that only later said what it is.
func TestAppPasswordLastUse(t *testing.T) {
	in(t, func(r *rig) {
		good := r.issue(auth.NewAppPassword{Account: "alice", Password: auth.Secret("secret")}).Password
		p := r.enter(home, "alice", good)
		p.send("i ID (\"name\" \"Mailprog\" \"version\" \"1.0\")\r\n")
		p.want(`\* ID NIL`, "i OK done")
		p.hangUp()
		ctx, cancel := context.WithCancel(r.t.Context())
		cancel()
		if err := r.Auth.Run(ctx); err != nil {
			t.Fatal(err)
		}
		list, err := r.directory.AppPasswords(r.t.Context(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		use := list[0].LastUse
		if use.Program != "Mailprog 1.0" || use.Source != mustAddr(home).Addr() || !use.Time.Equal(time.Now()) {
			t.Errorf("last use: %+v", use)
		}
	})
}

package proxy

import (
	"strings"
	"testing"

	"imapwarden/auth"
)

// withMaster gives the upstream a master user.
func (r *rig) withMaster(separator string) {
	r.upstream.master = "master-password"
	r.Route("").Master = &Master{User: "master", Password: auth.Secret("master-password"), Separator: separator}
}

// Who proved an app password is logged in by the master user, in the way that the upstream
// understands, and the vault isn't needed.
func TestMaster(t *testing.T) {
	for _, test := range []struct{ name, separator, greeting, want string }{
		{"authzid", "", "", "AUTHENTICATE alice\x00master\x00master-password"},
		{"separator", "*", "", "AUTHENTICATE \x00alice*master\x00master-password"},
		{"separator, LOGIN", "*", "* OK [CAPABILITY IMAP4rev1] ready", `LOGIN "alice*master" "master-password"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, func(r *rig) {
				r.withMaster(test.separator)
				r.upstream.greeting = test.greeting
				p := r.issue(auth.NewAppPassword{Account: "alice"})
				r.enter(home, "alice", p.Password).hangUp()
				want, isSASL := strings.CutPrefix(test.want, "AUTHENTICATE ")
				if isSASL && r.upstream.last() != want || !isSASL && !r.upstream.heard(want) {
					t.Errorf("the upstream saw %q and heard %q", r.upstream.last(), r.upstream.commands)
				}
				r.wantNowhere("master-password", p.Password)
			})
		})
	}
}

// The account's own password goes its own way, and is judged as such.
func TestMasterIsForAppPasswordsOnly(t *testing.T) {
	in(t, func(r *rig) {
		r.withMaster("")
		secret := r.enroll("alice")
		r.enter(home, "alice", "secret"+r.code(secret)).hangUp()
		if got := r.upstream.last(); got != "\x00alice\x00secret" {
			t.Errorf("by code: the upstream saw %q", got)
		}
		r.enter(home, "alice", "secret").hangUp()
		if got := r.upstream.last(); got != "\x00alice\x00secret" {
			t.Errorf("by grant: the upstream saw %q", got)
		}
		for _, password := range []string{"wrong", "master-password"} {
			if got := r.answer(home, "alice", password); got != failed {
				t.Error(got)
			}
			if got := r.upstream.last(); got != "\x00alice\x00"+password {
				t.Errorf("the upstream saw %q", got)
			}
		}
	})
}

// That the master user isn't let in is our trouble, never a wrong password of the client's.
func TestMasterFails(t *testing.T) {
	for _, test := range []struct {
		name, greeting, password, log string
	}{
		{"no AUTH=PLAIN", "* OK [CAPABILITY IMAP4rev1] ready", "master-password", "AUTH=PLAIN"},
		{"NO for the master user", "", "changed", `it refuses the master user "master"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, func(r *rig) {
				r.withMaster("")
				r.upstream.greeting, r.upstream.master = test.greeting, test.password
				p := r.issue(auth.NewAppPassword{Account: "alice"})
				if got := r.answer(home, "alice", p.Password); got != readsUnavailable {
					t.Error(got)
				}
				if e := r.lastEvent(); e.Outcome != "failed" || e.Reason != reasonUnavailable {
					t.Errorf("audit: %+v", e)
				}
				lines := r.logs.FilterMessage("login attempt failed").All()
				if len(lines) != 1 || !strings.Contains(lines[0].ContextMap()["error"].(string), test.log) {
					t.Errorf("log: %v", lines)
				}
				r.wantNowhere("master-password", p.Password)
				if r.upstream.heard("LOGIN") {
					t.Error("it fell back to LOGIN")
				}
				r.upstream.greeting, r.upstream.master = "", "master-password"
				r.enter(home, "alice", p.Password).hangUp() // nothing was held against it
			})
		})
	}
}

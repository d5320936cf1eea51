package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"imapwarden/auth"
	"imapwarden/policy"
	"imapwarden/store/memory"
)

// A presented is a user name and a secret that are refused.
type presented struct {
	name   string
	make   func(r *rig, alice auth.Enrolment) (user, secret string)
	reason string
}

func always(user, secret string) func(*rig, auth.Enrolment) (string, string) {
	return func(*rig, auth.Enrolment) (string, string) { return user, secret }
}

// app presents one of alice's app passwords, as change left it. Its vault is full.
func app(wanted auth.NewAppPassword, change func(*rig, *auth.IssuedAppPassword)) func(*rig, auth.Enrolment) (string, string) {
	return func(r *rig, _ auth.Enrolment) (string, string) {
		wanted.Account, wanted.Password = "alice", auth.Secret("secret")
		p := r.issue(wanted)
		if change != nil {
			change(r, &p)
		}
		return "alice", p.Password
	}
}

// mistyped is text with another last letter or digit.
func mistyped(text string) string {
	last := "7"
	if strings.HasSuffix(text, last) {
		last = "8"
	}
	return text[:len(text)-1] + last
}

// neverIssued is an app password that nobody has.
func neverIssued(r *rig) string {
	r.t.Helper()
	directory := *r.directory
	directory.Records = memory.New()
	return (&rig{t: r.t, directory: &directory}).issue(auth.NewAppPassword{Account: "alice"}).Password
}

// What is wrong with credentials, each in a way of its own. The last second factor was shown
// elsewhere.
var wrong = []presented{
	{"wrong password", always("alice", "wrong"), "wrong-password"},
	{"no code", always("alice", "secret"), "no-code"},
	{"wrong password, right code", func(r *rig, alice auth.Enrolment) (string, string) {
		return "alice", "wrong" + r.code(alice.Secret)
	}, "wrong-password"},
	{"wrong code", func(r *rig, alice auth.Enrolment) (string, string) {
		return "alice", "secret" + neverRight(r, alice.Secret)
	}, "wrong-code"},
	{"replayed code", func(r *rig, alice auth.Enrolment) (string, string) {
		secret := "secret" + r.code(alice.Secret)
		r.enter(elsewhere, "alice", secret).hangUp()
		return "alice", secret
	}, "replayed-code"},
	{"stale code", func(r *rig, alice auth.Enrolment) (string, string) {
		secret := "secret" + r.code(alice.Secret)
		time.Sleep(time.Hour)
		return "alice", secret
	}, "expired"},
	{"used recovery code", func(r *rig, alice auth.Enrolment) (string, string) {
		secret := "secret" + alice.RecoveryCodes[0]
		r.enter(elsewhere, "alice", secret).hangUp()
		return "alice", secret
	}, "replayed-code"},
	{"recovery code that was used long ago", func(r *rig, alice auth.Enrolment) (string, string) {
		secret := "secret" + alice.RecoveryCodes[0]
		r.enter(elsewhere, "alice", secret).hangUp()
		time.Sleep(time.Hour)
		return "alice", secret
	}, "expired"},
	{"unknown account", always("nobody", "secret"), "not-enrolled"},
	{"unknown account, wrong password", always("nobody", "wrong"), "wrong-password"},
	{"mistyped app password", app(auth.NewAppPassword{}, func(_ *rig, p *auth.IssuedAppPassword) {
		p.Password = mistyped(p.Password)
	}), "app-password-typo"},
	{"unknown app password", func(r *rig, _ auth.Enrolment) (string, string) { return "alice", neverIssued(r) }, "unknown-app-password"},
	{"another account's app password", func(r *rig, _ auth.Enrolment) (string, string) {
		return "alice", r.issue(auth.NewAppPassword{Account: "bob", Password: auth.Secret("secret")}).Password
	}, "unknown-app-password"},
	{"app password of an unknown account", func(r *rig, _ auth.Enrolment) (string, string) {
		return "nobody", neverIssued(r)
	}, "unknown-app-password"},
	{"revoked app password", app(auth.NewAppPassword{}, func(r *rig, p *auth.IssuedAppPassword) {
		if err := r.directory.RevokeAppPassword(r.t.Context(), "alice", p.ID); err != nil {
			r.t.Fatal(err)
		}
	}), "revoked-app-password"},
	{"expired app password", func(r *rig, alice auth.Enrolment) (string, string) {
		return app(auth.NewAppPassword{Expires: time.Now().Add(time.Minute)}, func(*rig, *auth.IssuedAppPassword) {
			time.Sleep(time.Minute)
		})(r, alice)
	}, "expired-app-password"},
	{"app password from a foreign network", app(auth.NewAppPassword{
		Networks: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
	}, nil), "app-password-network"},
	{"app password, not sealed", func(r *rig, _ auth.Enrolment) (string, string) {
		return "alice", r.issue(auth.NewAppPassword{Account: "alice"}).Password
	}, "password-not-sealed"},
	{"app password, outdated vault", app(auth.NewAppPassword{}, func(r *rig, _ *auth.IssuedAppPassword) {
		r.upstream.password = "changed"
	}), "sealed-password-outdated"},
	{"app password, outdated vault, once more", app(auth.NewAppPassword{}, func(r *rig, p *auth.IssuedAppPassword) {
		r.upstream.password = "changed"
		r.answer(elsewhere, "alice", p.Password)
	}), "sealed-password-outdated"},
}

// Refusals are the same octets after the same time, whichever part was wrong: from an upstream
// that says no at once, and from one that takes its time over it (Dovecot: auth_failure_delay).
func TestRefusalsAreAlike(t *testing.T) {
	for _, upstream := range []struct {
		no, want time.Duration
	}{
		{0, 2 * time.Second},
		{2 * time.Second, 2 * time.Second},
		{2050 * time.Millisecond, 5 * time.Second},
	} {
		for _, test := range wrong {
			t.Run(fmt.Sprintf("%v/%s", upstream.no, test.name), func(t *testing.T) {
				in(t, func(r *rig) {
					r.upstream.slowNo = upstream.no
					*r.Route("") = Upstream{Name: "slow", TLS: UpstreamPlain, Dial: r.upstream.dial}
					r.Route("").pace.noteNo(upstream.no, time.Minute) // it has said no before
					user, secret := test.make(r, r.enrolment("alice"))
					r.refusedAlike(user, secret, upstream.want)
					if got := r.lastEvent().Reason; got != test.reason {
						t.Errorf("audit says %q", got)
					}
				})
			})
		}
	}
}

// refusedAlike presents that, and reads no more than the one refusal after that time.
func (r *rig) refusedAlike(user, secret string, after time.Duration) {
	r.t.Helper()
	p := r.connectTLS(home)
	began := time.Now()
	p.send("l LOGIN {%d+}\r\n%s {%d+}\r\n%s\r\n", len(user), user, len(secret), secret)
	if got, err := p.line(); err != nil || got != failed {
		r.t.Errorf("got %q, %v", got, err)
	}
	if took := time.Since(began); took != after {
		r.t.Errorf("answered after %v, want %v", took, after)
	}
	p.hangUp()
}

// What no upstream should see is refused by its octets alone, without a look at what the upstream
// or the store would say of it.
func TestMalformedIsRefusedAlike(t *testing.T) {
	for _, test := range []struct{ name, user, password, reason string }{
		{"no such name", "a%b*", "secret", "malformed-name"},
		{"control characters", "alice", "sec\x01ret", "malformed-credentials"},
		{"not UTF-8", "alice", "sec\xffret", "malformed-credentials"},
		{"empty password", "alice", "", "malformed-credentials"},
	} {
		in(t, func(r *rig) {
			r.refusedAlike(test.user, test.password, 2*time.Second)
			if got := r.lastEvent().Reason; got != test.reason {
				t.Errorf("%s: audit says %q", test.name, got)
			}
			if dials, _ := r.upstream.count(); dials > 0 {
				t.Errorf("%s: the upstream was asked", test.name)
			}
		})
	}
}

// Only where the account has been before do people read what is missing, for it says that the
// password is right. The answer itself stays the same.
func TestHint(t *testing.T) {
	const (
		needed   = "* NO [ALERT] Second factor needed, see https://mail.example.org/"
		expired  = "* NO [ALERT] Second factor expired, see https://mail.example.org/"
		wrongOne = "* NO [ALERT] Second factor needed: that code doesn't count, see https://mail.example.org/"
	)
	tests := []struct {
		name, from string
		secret     func(r *rig, secret, stale string) string
		want       string // "": nothing
	}{
		{"no code", home, func(*rig, string, string) string { return "secret" }, needed},
		{"no code, from a neighbour", neighbour, func(*rig, string, string) string { return "secret" }, needed},
		{"stale code", home, func(_ *rig, _, stale string) string { return "secret" + stale }, expired},
		{"wrong code", home, func(r *rig, secret, _ string) string { return "secret" + neverRight(r, secret) }, wrongOne},
		{"wrong password", home, func(*rig, string, string) string { return "wrong" }, ""},
		{"wrong password, right code", home, func(r *rig, secret, _ string) string { return "wrong" + r.code(secret) }, ""},
		{"no code, elsewhere", elsewhere, func(*rig, string, string) string { return "secret" }, ""},
		{"stale code, elsewhere", elsewhere, func(_ *rig, _, stale string) string { return "secret" + stale }, ""},
		{"wrong code, elsewhere", elsewhere, func(r *rig, secret, _ string) string { return "secret" + neverRight(r, secret) }, ""},
	}
	for _, known := range []string{"by a grant", "in policy"} {
		for _, test := range tests {
			t.Run(known+"/"+test.name, func(t *testing.T) {
				in(t, func(r *rig) {
					r.Help = "https://mail.example.org/"
					secret := r.enroll("alice")
					stale := r.code(secret)
					r.enter(home, "alice", "secret"+stale).hangUp()
					time.Sleep(13 * time.Hour) // and the grant has ended
					switch known {
					case "by a grant":
						r.Policy = &policy.Gate{} // it has forgotten all
					case "in policy":
						if _, err := r.store.RemoveGrants(r.t.Context(), "alice"); err != nil {
							t.Fatal(err)
						}
					}
					r.wantHint(test.from, test.secret(r, secret, stale), test.want)
				})
			})
		}
	}
}

func TestHintWithoutHelp(t *testing.T) {
	in(t, func(r *rig) {
		secret := r.enroll("alice")
		r.enter(home, "alice", "secret"+r.code(secret)).hangUp()
		time.Sleep(13 * time.Hour)
		r.wantHint(home, "secret", "* NO [ALERT] Second factor needed")
	})
}

// Who isn't enrolled and has signed in before, while that was enough, is told too.
func TestHintNotEnrolled(t *testing.T) {
	in(t, func(r *rig) {
		r.Mode = auth.Optional
		r.enter(home, "alice", "secret").hangUp()
		r.Mode = auth.Required
		r.wantHint(home, "secret", "* NO [ALERT] Second factor needed")
		r.wantHint(elsewhere, "secret", "")
		r.wantHint(home, "wrong", "")
	})
}

// wantHint reads the hint, if there is to be one, and the same answer at the same time as ever.
func (r *rig) wantHint(from, secret, want string) {
	r.t.Helper()
	p := r.connectTLS(from)
	began := time.Now()
	p.send("l LOGIN alice %s\r\n", secret)
	var got []string
	for last := ""; !strings.HasPrefix(last, "l "); got = append(got, last) {
		var err error
		if last, err = p.line(); err != nil {
			r.t.Fatal(err)
		}
	}
	wanted := []string{failed}
	if want != "" {
		wanted = []string{want, failed}
	}
	if !slices.Equal(got, wanted) {
		r.t.Errorf("%s: %q", from, got)
	}
	if took := time.Since(began); took != 2*time.Second {
		r.t.Errorf("answered after %v", took)
	}
	p.hangUp()
}

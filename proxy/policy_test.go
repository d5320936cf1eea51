package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"imapwarden/auth"
	"imapwarden/policy"
)

// What a rule denies is answered as unavailable, without a word to the upstream, and whatever
// was presented.
func TestRuleDenies(t *testing.T) {
	in(t, func(r *rig) {
		r.Rules = policy.Rules{{Name: "no alice here", Accounts: []string{"alice"}, Networks: policy.NewNetworkSet(netip.MustParsePrefix("198.51.100.0/24")), Deny: true}}
		secret := r.enroll("alice")
		app := r.issue(auth.NewAppPassword{Account: "alice", Password: auth.Secret("secret")}).Password
		for _, password := range []string{"secret" + r.code(secret), "wrong", app} {
			if got := r.answer(home, "alice", password); got != readsUnavailable {
				t.Error(got)
			}
		}
		if dials, _ := r.upstream.count(); dials > 0 {
			t.Error("the upstream was asked")
		}
		if e := r.audit()[0]; e.Outcome != "refused" || e.Reason != policy.RuleDenied || e.Rule != "no alice here" {
			t.Errorf("audit: %+v", e)
		}
		r.enter(elsewhere, "alice", "secret"+r.code(secret)).hangUp()
	})
}

// Rules say who needs a second factor, in place of mfa.mode; the first that matches does.
func TestRuleSecondFactor(t *testing.T) {
	rule := func(name, account, mode string) policy.Rule {
		return policy.Rule{Name: name, Accounts: []string{account}, SecondFactor: mode}
	}
	for _, test := range []struct {
		name  string
		mode  auth.Mode
		rules policy.Rules
		rule  string // in the audit
		ok    bool
	}{
		{"required by mode", auth.Required, nil, "", false},
		{"waived by a rule", auth.Required, policy.Rules{rule("waived", "b*", "optional")}, "waived", true},
		{"observed by a rule", auth.Required, policy.Rules{rule("observed", "b*", "observe")}, "observed", true},
		{"demanded by a rule", auth.Optional, policy.Rules{rule("demanded", "bob", "required")}, "demanded", false},
		{"a rule about others", auth.Required, policy.Rules{rule("others", "alice", "optional")}, "", false},
		{"a rule that leaves it", auth.Required, policy.Rules{rule("left", "bob", "")}, "left", false},
		{"the first demands", auth.Optional, policy.Rules{rule("first", "bob", "required"), rule("second", "bob", "optional")}, "first", false},
		{"the first waives", auth.Required, policy.Rules{rule("first", "bob", "optional"), rule("second", "bob", "required")}, "first", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, func(r *rig) {
				r.Mode, r.Rules = test.mode, test.rules
				if got := r.answer(home, "bob", "secret"); strings.HasPrefix(got, "l OK") != test.ok {
					t.Error(got)
				}
				if got := r.lastEvent().Rule; got != test.rule {
					t.Errorf("rule: %q", got)
				}
			})
		})
	}
}

func TestRuleMaxSessions(t *testing.T) {
	in(t, func(r *rig) {
		r.Mode = auth.Optional
		r.Rules = policy.Rules{{Name: "two at most", Accounts: []string{"bob"}, MaxSessions: 2}}
		first := r.enter(home, "bob", "secret")
		second := r.enter(elsewhere, "bob", "secret")
		for i := range 3 {
			if got := r.answer(fmt.Sprintf("192.0.2.%d:4000", i), "bob", "secret"); got != "l NO [LIMIT] Too many connections" {
				t.Errorf("the third: %s", got)
			}
		}
		other := r.enter(home, "carol", "secret")
		first.hangUp()
		r.enter(home, "bob", "secret").hangUp()
		second.hangUp()
		other.hangUp()
	})
}

// TestSameCodesAgainAndAgain: who knows the password alone must not have a few codes tried for free
// until the clock makes one of them right.
func TestSameCodesAgainAndAgain(t *testing.T) {
	in(t, func(r *rig) {
		secret := r.enroll("alice")
		code, err := totp.GenerateCode(secret, time.Now().Add(10*time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		for range 12 {
			if got := r.answer("203.0.113.9:1", "alice", "secret"+code); !strings.HasPrefix(got, "l NO [AUTHENTICATIONFAILED]") {
				t.Fatalf("%s", got)
			}
			time.Sleep(time.Minute)
		}
		if got := r.answer(home, "alice", "secret"+r.code(secret)); !strings.HasPrefix(got, "l OK") {
			t.Errorf("the owner: %s", got)
		}
	})
}

package main

import (
	"net/netip"
	"strings"
	"testing"

	"imapwarden/admin"
	"imapwarden/auth"
	"imapwarden/policy"
)

func TestExplanationForPeople(t *testing.T) {
	yes := policy.Decision{Allowed: true}
	refused := policy.Decision{Signal: policy.AccountLimit}
	for name, row := range map[string]struct {
		e    admin.Explanation
		want []string
	}{
		"limits refuse": {
			admin.Explanation{Limits: &policy.Explanation{Decision: refused, WaitSeconds: 90, AccountFailures: 10, AccountLimit: 10}},
			[]string{
				"would be refused for another 1m30s: too many attempts on the account have failed",
				"Failures of the account from other networks: 10 of 10.", "\nBut for that, and if",
			},
		},
		"busy": {
			admin.Explanation{Limits: &policy.Explanation{Decision: refused, Busy: true}},
			[]string{"until others that are under way have ended"},
		},
		"observed": {
			admin.Explanation{Limits: &policy.Explanation{Decision: policy.Decision{Allowed: true, Observed: policy.AddressLimit}}},
			[]string{`only because that signal is observed: too many attempts from that address`, "\nIf the upstream"},
		},
		"nothing counts, and the upstream isn't asked": {
			admin.Explanation{
				Limits: &policy.Explanation{Decision: policy.Decision{Allowed: true}, Unproved: policy.Decision{Signal: policy.Unproved}, PasswordAlone: yes, RightCode: yes},
				Login:  auth.Explanation{Prospects: []auth.Prospect{{With: "the password alone", Outcome: "refused", Reason: auth.NoCode}}},
			},
			[]string{"\nWithout anything that counts as a second factor it is refused: nothing counts as a second factor, so the upstream isn't asked. With it, the limits let it pass.\n"},
		},
		"the password alone is enough, and counts": {
			admin.Explanation{
				Limits: &policy.Explanation{Decision: policy.Decision{Allowed: true}, Unproved: policy.Decision{Signal: policy.Unproved}, PasswordAlone: yes, RightCode: yes},
				Login:  auth.Explanation{Prospects: []auth.Prospect{{With: "the password alone", Outcome: "accepted", Factor: auth.FactorNone}}},
			},
			[]string{"\nThe limits let it pass.\n"},
		},
		"familiar": {
			admin.Explanation{Limits: &policy.Explanation{Decision: yes, Unproved: yes, Familiar: true, HomeFailures: 2, HomeLimit: 50}},
			[]string{"The limits let it pass.", "is familiar with that network, whose failures count for themselves: 2 of 50 today"},
		},
		"a rule that changes nothing": {
			admin.Explanation{Rule: policy.Ruling{Rule: "guests"}},
			[]string{`The rule "guests" matches it and changes nothing.`},
		},
		"waits for its first code": {
			admin.Explanation{Login: auth.Explanation{Known: true, Pending: true, Mode: auth.Observe, ClientGrants: 2}},
			[]string{"required of nobody", "waits for its first code", "It has 2 grants for TLS clients"},
		},
		"an unknown mode is the strict one": {
			admin.Explanation{Login: auth.Explanation{Known: true}},
			[]string{"required of everybody; the account hasn't enrolled."},
		},
		"prospects": {
			admin.Explanation{Login: auth.Explanation{Prospects: []auth.Prospect{
				{With: "an app password", Outcome: "refused", Reason: auth.ForeignNetwork, Detail: `"pho` + "\x1b" + `ne"`},
				{With: "the password alone", Outcome: "accepted", Factor: auth.FactorNone, Detail: "observe mode; else refused: no-code"},
				{With: "something new", Outcome: "refused", Reason: "brand-new"},
			}}},
			[]string{
				`With an app password: refused, "pho?ne": it may not come from there.`,
				"With the password alone: accepted, observe mode; else refused: no-code.", "With something new: refused, brand-new.",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			row.e.Account, row.e.Source = "alice@example.org", netip.MustParseAddr("203.0.113.7")
			var out strings.Builder
			if err := writeExplanation(&out, row.e); err != nil {
				t.Fatal(err)
			}
			for _, want := range row.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("lacks %q:\n%s", want, out.String())
				}
			}
		})
	}
}

func TestOctets(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 1_234_567: "1.2 MB", 1<<63 - 1: "9.2 EB",
	} {
		if got := octets(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

package proxy

import (
	"fmt"
	"net/netip"
	"testing"

	"imapwarden/auth"
	"imapwarden/policy"
)

// penalise has strangers guess at the account until it has a penalty.
func (r *rig) penalise(account string) {
	for i := range 10 {
		r.answer(from(i), account, fmt.Sprint("junk", string(rune('a'+i))))
	}
}

// A penalty of the account makes no guess of a code free: who has the password would begin one,
// and then try codes until one is let on.
func TestCodesCountDuringAPenalty(t *testing.T) {
	in(t, func(r *rig) {
		r.enroll("alice")
		r.penalise("alice")
		asked, _ := r.upstream.count()
		const thief = "172.16.0.1"
		before := r.Policy.Explain(policy.Attempt{Addr: netip.MustParseAddr(thief), Account: "alice"})
		for i := range 5 {
			if got := r.answer(thief+":4000", "alice", fmt.Sprint("secret", 900000+i)); got != tooManyFailed {
				t.Error(got)
			}
		}
		after := r.Policy.Explain(policy.Attempt{Addr: netip.MustParseAddr(thief), Account: "alice"})
		if n := before.AccountCodesLeft - after.AccountCodesLeft; n != 5 {
			t.Errorf("%d codes are charged, want 5", n)
		}
		if n := before.AddressLeftDay - after.AddressLeftDay; n != 5 {
			t.Errorf("the address is charged %d failures, want 5", n)
		}
		if again, _ := r.upstream.count(); again != asked {
			t.Error("the upstream was asked")
		}
	})
}

// Beside a wrong password, a right code is refused as a wrong one is: also of those that follow.
func TestRightCodeDoesntShow(t *testing.T) {
	var answers [2]string
	for i := range answers {
		in(t, func(r *rig) {
			secret := r.enroll("alice")
			r.penalise("alice")
			for n := range 4 {
				code := "900000"
				if i == 1 {
					code = r.code(secret)
				}
				got, took := r.timed("172.16.0.1:1", "alice", fmt.Sprint("nope", n, "x", code))
				answers[i] += fmt.Sprintln(got, took)
			}
		})
	}
	if answers[0] != answers[1] {
		t.Errorf("wrong codes:\n%sright ones:\n%s", answers[0], answers[1])
	}
}

// Where the budget of strangers is used up, it doesn't show who is enrolled.
func TestEnrolmentDoesntShow(t *testing.T) {
	in(t, func(r *rig) {
		r.Mode = auth.Optional
		r.enroll("alice")
		r.upstream.password = "another"
		for i := range 30 {
			r.answer(from(i), fmt.Sprint("nobody", i), fmt.Sprint("pw", i))
		}
		var answers [2]string
		for i, name := range []string{"alice", "bob"} {
			for n := range 4 {
				_, took := r.timed(fmt.Sprintf("172.16.%d.1:1", i*8), name, fmt.Sprint("guess", n))
				answers[i] += fmt.Sprint(" ", took)
			}
		}
		if answers[0] != answers[1] {
			t.Errorf("enrolled:%s, not enrolled:%s", answers[0], answers[1])
		}
	})
}

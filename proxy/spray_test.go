package proxy

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/policy"
)

// from is the n-th of many strangers, each in a network of its own.
func from(n int) string { return fmt.Sprintf("10.%d.%d.1:4000", n/250+1, n%250*2%250) }

const tooManyFailed = "l NO [UNAVAILABLE] Too many failed logins, try again later"

// timed is answer, with how long it took.
func (r *rig) timed(from, user, password string) (string, time.Duration) {
	r.t.Helper()
	p := r.connectTLS(from)
	defer p.hangUp()
	began := time.Now()
	return p.login(user, password), time.Since(began)
}

// wantAlarm records what policy tells.
func (r *rig) told() *[]policy.Alert {
	list := new([]policy.Alert)
	r.Policy.Alert = func(a policy.Alert) { *list = append(*list, a) }
	return list
}

// Whoever can't be let in anyway isn't shown to the upstream, but for a few; and can't tell.
func TestUpstreamIsNotAskedForNothing(t *testing.T) {
	in(t, func(r *rig) {
		for i := range 60 {
			r.enroll(fmt.Sprint("user", i))
		}
		for i := range 45 { // every third password is right
			password := "secret"
			if i%3 > 0 {
				password = fmt.Sprint("guess", i)
			}
			got, took := r.timed(from(i), fmt.Sprint("user", i), password)
			if got != failed || took != 2*time.Second {
				t.Errorf("attempt %d: %s after %s", i, got, took)
			}
		}
		if asked, _ := r.upstream.count(); asked != 20 {
			t.Errorf("the upstream was asked %d times, want 20", asked)
		}
		if e := r.lastEvent(); e.Reason != policy.Unproved || e.Rule != policy.Unproved || e.Outcome != audit.Refused {
			t.Errorf("%+v", e)
		}
		secret := r.enroll("alice")
		r.enter(elsewhere, "alice", "secret"+r.code(secret)).hangUp()
	})
}

// A password that is tried on many accounts needs a fresh code, also where a grant would do.
func TestSprayedPasswordNeedsAFreshCode(t *testing.T) {
	in(t, func(r *rig) {
		secret := r.enroll("alice")
		r.enter(home, "alice", "secret"+r.code(secret)).hangUp()
		r.enter(home, "alice", "secret").hangUp()
		told := r.told()
		for i := range 5 {
			name := fmt.Sprint("user", i)
			r.enroll(name)
			r.upstream.password = "another"
			if got := r.answer(from(i), name, "secret"); got != failed {
				t.Fatal(got)
			}
			r.upstream.password = "secret"
		}
		if got := r.answer(home, "alice", "secret"); got != failed {
			t.Errorf("under a grant: %s", got)
		}
		if e := r.lastEvent(); e.Reason != string(auth.NoCode) || e.Rule != policy.PasswordSprayed {
			t.Errorf("%+v", e)
		}
		time.Sleep(time.Minute)
		r.enter(home, "alice", "secret"+r.code(secret)).hangUp()
		right := false
		for _, a := range *told {
			right = right || a.Signal == policy.PasswordSprayed && a.Right && a.Account == "alice"
		}
		if !right {
			t.Errorf("told: %+v", *told)
		}
	})
}

// Nor does the password alone let in where the mode would have it.
func TestSprayedPasswordInModes(t *testing.T) {
	for _, mode := range []auth.Mode{auth.Optional, auth.Observe} {
		t.Run(string(mode), func(t *testing.T) {
			in(t, func(r *rig) {
				r.Mode = mode
				r.upstream.password = "another"
				for i := range 5 {
					if got := r.answer(from(i), fmt.Sprint("user", i), "secret"); got != failed {
						t.Fatal(got)
					}
				}
				r.upstream.password = "secret"
				if got := r.answer(from(10), "bob", "secret"); got != failed {
					t.Errorf("the right one: %s", got)
				}
				if e := r.lastEvent(); e.Rule != policy.PasswordSprayed {
					t.Errorf("%+v", e)
				}
			})
		})
	}
}

// An account that nobody has is refused as a wrong password is; whoever tried it has to wait.
func TestDecoy(t *testing.T) {
	in(t, func(r *rig) {
		r.Policy.Limits.Decoys = []string{"backup"}
		told := r.told()
		asked, _ := r.upstream.count()
		if got, took := r.timed(elsewhere, "backup", "secret"); got != failed || took != 2*time.Second {
			t.Errorf("%s after %s", got, took)
		}
		if e := r.lastEvent(); e.Reason != policy.DecoyAccount || e.Account != "backup" {
			t.Errorf("%+v", e)
		}
		if got := r.answer(elsewhere, "alice", "secret"); got != tooManyFailed {
			t.Error(got)
		}
		if again, _ := r.upstream.count(); again != asked {
			t.Error("the upstream was asked")
		}
		if len(*told) != 1 || (*told)[0].Signal != policy.DecoyAccount {
			t.Errorf("told: %+v", *told)
		}
	})
}

// While an account is guessed at, its owner comes in with a code from anywhere. Whoever guesses
// codes reads the same as whoever brings none.
func TestOwnerAbroadWhileOthersGuess(t *testing.T) {
	in(t, func(r *rig) {
		secret := r.enroll("alice")
		for i := range 10 {
			r.answer(from(i), "alice", fmt.Sprint("guess", i))
		}
		place := 0
		for what, password := range map[string]string{
			"no code":                      "secret",
			"wrong code":                   "secret" + "000000",
			"right code, wrong password":   "wrong" + r.code(secret),
			"wrong password, wrong code":   "wrong" + "000000",
			"wrong password and no code":   "wrong",
			"right code, another password": "sesame" + r.code(secret),
		} {
			place++
			got, took := r.timed(fmt.Sprintf("203.0.%d.9:4000", place), "alice", password)
			if got != tooManyFailed || took != 2*time.Second {
				t.Errorf("%s: %s after %s", what, got, took)
			}
		}
		r.enter(elsewhere, "alice", "secret"+r.code(secret)).hangUp()
	})
}

// Refusals of a source that fails again and again last longer, and one is in flight at a time.
func TestTarpit(t *testing.T) {
	in(t, func(r *rig) {
		r.enroll("alice")
		p := r.connectTLS(elsewhere)
		for i, want := range []time.Duration{2, 4, 8} {
			began := time.Now()
			if got := p.login("alice", fmt.Sprint("guess", i)); got != failed {
				t.Error(got)
			}
			if took := time.Since(began); took != want*time.Second {
				t.Errorf("refusal %d after %s", i+1, took)
			}
		}
		p.hangUp()
		first, second := r.connectTLS(elsewhere), r.connectTLS(elsewhere)
		began := time.Now()
		first.send("l LOGIN alice another\r\n")
		synctest.Wait()
		second.send("l LOGIN alice yetanother\r\n")
		first.want(`l NO \[AUTHENTICATIONFAILED\] .*`)
		if took := time.Since(began); took != 15*time.Second {
			t.Errorf("the first after %s", took)
		}
		if line, err := second.line(); err != nil || !strings.HasPrefix(line, "l NO ") {
			t.Errorf("%q, %v", line, err)
		}
		if took := time.Since(began); took < 15*time.Second {
			t.Errorf("the second after %s: both were in flight", took)
		}
		first.hangUp()
		second.hangUp()
	})
}

// While far more fails than usual, a code is good for a shorter while.
func TestAlarmShortensGrants(t *testing.T) {
	in(t, func(r *rig) {
		r.Auth.Grant.Idle = 24 * time.Hour
		for i := range 60 {
			r.enroll(fmt.Sprint("user", i))
			r.answer(from(i), fmt.Sprint("user", i), fmt.Sprint("guess", i))
			time.Sleep(time.Second)
		}
		secret := r.enroll("alice")
		if !r.Policy.Alarmed() {
			t.Fatal("no alarm")
		}
		r.enter(home, "alice", "secret"+r.code(secret)).hangUp()
		time.Sleep(3*time.Hour - time.Minute)
		r.enter(home, "alice", "secret").hangUp()
		time.Sleep(2 * time.Minute)
		if got := r.answer(home, "alice", "secret"); got != failed {
			t.Error(got)
		}
	})
}

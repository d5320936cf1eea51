package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// A step is one attempt, an end for one that is in flight, and a pause.
type step struct {
	At      Attempt
	Which   int // in flight
	Outcome outcome
	Secret  byte
	Pause   time.Duration
}

type outcome int

const (
	stays outcome = iota
	released
	succeeded
	failed
)

var steps = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
	return step{
		At: Attempt{
			Addr:        rapid.SampledFrom([]netip.Addr{atHome, atHome.Next(), hotel, address(1), {}}).Draw(t, "addr"),
			Account:     rapid.SampledFrom([]string{"alice", "bob"}).Draw(t, "account"),
			AppPassword: rapid.Bool().Draw(t, "app password"),
		},
		Which:   rapid.IntRange(0, 20).Draw(t, "which"),
		Outcome: rapid.SampledFrom([]outcome{stays, released, succeeded, failed, failed, failed}).Draw(t, "outcome"),
		Secret:  rapid.ByteRange(0, 15).Draw(t, "secret"),
		Pause: rapid.SampledFrom([]time.Duration{
			0, 0, 0, time.Second, time.Minute, time.Hour, 26 * time.Hour, 80 * 24 * time.Hour,
		}).Draw(t, "pause"),
	}
}), 1, 60)

// Explain says what Begin then does; and a Gate that is asked all the time goes the
// same way as its twin that never is.
func TestExplainAgreesWithBegin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limits := Limits{
			Observe:          rapid.Bool().Draw(rt, "observe"),
			AddressPerMinute: 3, AddressPerDay: 5, AccountFailures: rapid.IntRange(2, 4).Draw(rt, "failures"),
		}
		script := steps.Draw(rt, "steps")
		var err error
		synctest.Test(t, func(*testing.T) { err = playTwice(limits, script) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// playTwice plays the script at a Gate that is asked before each attempt and at one
// that isn't, and returns the first disagreement.
func playTwice(limits Limits, script []step) error {
	asked, twin := calm(limits), calm(limits)
	var flying [][2]*Trial
	for i, s := range script {
		e, err := explainQuietly(asked, s.At.with(fmt.Sprint(s.Secret)))
		if err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		at := s.At.with(fmt.Sprint(s.Secret))
		d, trial := try(asked, at)
		also, twins := try(twin, at)
		if e.Decision != d || e.Busy != d.busy || d != also {
			return fmt.Errorf("step %d: explained as %+v, decided as %+v, without asking as %+v", i, e, d, also)
		}
		if d.Allowed {
			flying = append(flying, [2]*Trial{trial, twins})
		}
		if len(flying) > 0 && s.Outcome != stays {
			which := s.Which % len(flying)
			for _, trial := range flying[which] {
				s.end(trial)
			}
			flying = slices.Delete(flying, which, which+1)
		}
		time.Sleep(s.Pause)
	}
	return nil
}

func (s step) end(trial *Trial) {
	switch s.Outcome {
	case released:
		trial.Release()
	case succeeded:
		trial.Succeeded(nil)
		trial.Release()
	case failed:
		trial.failWith(fmt.Sprint(s.Secret))
	}
}

// explainQuietly fails where Explain makes or loses an entry, or says two things.
func explainQuietly(g *Gate, at Attempt) (Explanation, error) {
	g.start()
	before := [...]int{g.sites.len(), g.accounts.len(), g.familiar.len(), g.networks.len(), g.passwords.len()}
	e := g.Explain(at)
	after := [...]int{g.sites.len(), g.accounts.len(), g.familiar.len(), g.networks.len(), g.passwords.len()}
	if before != after {
		return e, fmt.Errorf("from %v to %v entries", before, after)
	}
	if again := g.Explain(at); again != e {
		return e, fmt.Errorf("explained as %+v, and then as %+v", e, again)
	}
	return e, nil
}

func TestExplainNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		yes := Decision{Allowed: true}
		fresh := Explanation{
			Decision: yes, Unproved: yes, PasswordAlone: yes, RightCode: yes,
			AccountLimit: 10, AccountCodesLeft: 100,
			AddressLeftMinute: 10, AddressPerMinute: 10, AddressLeftDay: 50, AddressPerDay: 50, TarpitSeconds: 2,
			HomeLimit: 50, SessionsLimit: 50, SessionsHereLimit: 20, BeforeLoginLimit: 40,
		}
		if got := g.Explain(password(hotel, "alice")); got != fresh {
			t.Errorf("a stranger: %+v", got)
		}

		signIn(t, g, atHome, "alice")
		failures(t, g, atHome, "alice", 2)
		failures(t, g, hotel, "alice", 3)
		g.Admit(hotel)
		g.Enter(atHome, "alice", 0)
		g.Enter(hotel, "alice", 0)
		g.Enter(hotel, "bob", 0)
		want := fresh
		want.Familiar, want.HomeFailures, want.AccountFailures = true, 2, 3
		want.AddressLeftMinute, want.AddressLeftDay = 8, 48
		want.AccountNetworks, want.NetworkHome = 1, true
		want.FailuresInARow, want.TarpitSeconds = 2, 8
		want.Sessions, want.SessionsHere = 2, 1
		if got := g.Explain(password(atHome, "alice")); got != want {
			t.Errorf("at home:\ngot  %+v\nwant %+v", got, want)
		}
		want.Familiar, want.HomeFailures = false, 0
		want.AddressLeftMinute, want.AddressLeftDay, want.FailuresInARow, want.TarpitSeconds = 10, 50, 0, 2
		if got := g.Explain(device(password(atHome, "alice"))); got != want {
			t.Errorf("at home, a new phone:\ngot  %+v\nwant %+v", got, want)
		}

		for i := range 7 {
			guess(g, password(hotel, "alice"), i)
		}
		time.Sleep(500 * time.Millisecond)
		want = fresh
		want.Decision, want.WaitSeconds = Decision{Signal: AddressLimit, Wait: 6 * time.Second}, 6
		wait := Decision{Signal: AccountLimit, Wait: time.Minute}
		want.Unproved, want.PasswordAlone, want.RightCode = wait, wait, Decision{Allowed: true, Looks: AccountLimit}
		want.AccountNetworks, want.NetworkFailing = 1, 1
		want.FailuresInARow, want.TarpitSeconds = 10, 15
		want.AccountPenalty, want.AccountPenaltySeconds = 59500*time.Millisecond, 60
		want.AddressLeftMinute, want.AddressLeftDay = 0, 40
		want.Sessions, want.SessionsHere, want.BeforeLoginHere = 2, 1, 1
		if got := g.Explain(password(hotel, "alice")); got != want {
			t.Errorf("at the hotel:\ngot  %+v\nwant %+v", got, want)
		}
		if d := g.Explain(password(address(1), "alice")).Decision; d.Signal != AccountLimit {
			t.Errorf("elsewhere: %+v", d)
		}
	})
}

// A home that is only asked about is forgotten as one that nobody asks about.
func TestExplainIsNoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := calm(Limits{})
		at := password(atHome, "alice")
		g.Acquaint(at)
		for day := range 90 {
			if !g.Explain(at).Familiar {
				t.Fatalf("forgotten after %d days", day)
			}
			time.Sleep(24 * time.Hour)
		}
		time.Sleep(time.Hour)
		if g.Explain(at).Familiar {
			t.Error("familiar after 90 days without a sign-in")
		}
	})
}

func TestExplainBusy(t *testing.T) {
	g := calm(Limits{AddressPerMinute: 1})
	_, trial := g.Begin(password(hotel, "alice"))
	if e := g.Explain(password(hotel, "alice")); !e.Busy || e.Decision.Signal != AddressLimit || e.AddressLeftMinute != 1 {
		t.Errorf("while the only try is in flight: %+v", e)
	}
	trial.Release()
	if e := g.Explain(password(hotel, "alice")); e.Busy || !e.Decision.Allowed {
		t.Errorf("afterwards: %+v", e)
	}
}

func TestExplanationInJSON(t *testing.T) {
	g := calm(Limits{Observe: true, AddressPerMinute: 1})
	failures(t, g, hotel, "alice", 1)
	text, err := json.Marshal(g.Explain(password(hotel, "alice")))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"decision":{"allowed":true,"observed":"address-limit"}`, `"wait_seconds":0`, `"observe":true`, `"familiar":false`,
		`"account_failures":1`, `"account_penalty_seconds":0`, `"address_left_minute":0`, `"before_login_here":0`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	if strings.ContainsFunc(string(text), func(r rune) bool { return r >= 'A' && r <= 'Z' }) {
		t.Errorf("not all in snake_case: %s", text)
	}
}

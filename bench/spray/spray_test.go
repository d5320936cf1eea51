package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// small is a town of 300 accounts, and attackers of its size.
func small() settings {
	s := settings{habits: defaultHabits(), attackers: defaultAttackers(), seed: 1, mode: "both", parallel: 2}
	s.habits.People, s.habits.History = 300, 3
	a := &s.attackers
	a.OneRate, a.ManyGuesses, a.ManySources, a.SpraySources, a.SlowSources = 20*time.Second, 300, 300, 300, 300
	a.StuffSources, a.StuffPairs, a.StuffRight, a.KnownAccounts, a.LockoutTargets = 300, 2000, 0.05, 50, 1
	return s
}

func simulated(t *testing.T, s settings, attack string) *Report {
	t.Helper()
	days, err := chosenDays(attack)
	if err != nil {
		t.Fatal(err)
	}
	return simulate(s, days)
}

// TestQuietDay: where nobody attacks, nobody is refused.
func TestQuietDay(t *testing.T) {
	for _, tally := range simulated(t, small(), "none").Days[0].Tallies {
		if tally.Logins < 12_000 || tally.Failures < 200 {
			t.Errorf("%s: %d honest logins and %d that fail: that is no day of 300 people", tally.Defence, tally.Logins, tally.Failures)
		}
		if tally.isOurs() && tally.RefusedFamiliar+tally.RefusedElse > 0 {
			t.Errorf("%s refused %d honest logins at home and %d elsewhere: %+v", tally.Defence, tally.RefusedFamiliar, tally.RefusedElse, tally.Refusals)
		}
	}
}

// TestAims: with everybody attacking, the aims are kept where a second factor is required, and the
// baselines show that the attacks are worth something.
func TestAims(t *testing.T) {
	d := simulated(t, small(), "together").Days[0]
	for _, tally := range d.Tallies {
		if tally.Attempts < 10_000 || tally.Right < 100 {
			t.Errorf("%s: %d attempts, %d of them right: that is no attack", tally.Defence, tally.Attempts, tally.Right)
		}
		switch {
		case !tally.isOurs():
			if tally.TakenOver < 50 {
				t.Errorf("%s: %d accounts taken over, though nothing but passwords is asked for", tally.Defence, tally.TakenOver)
			}
			continue
		case tally.Defence == "imapwarden, required":
			if tally.TakenOver > 0 || tally.RefusedFamiliar > 0 || tally.RefusedElse > 0 {
				t.Errorf("%s: %d accounts taken over, honest logins refused: %d at home, %d elsewhere", tally.Defence, tally.TakenOver, tally.RefusedFamiliar, tally.RefusedElse)
			}
		case tally.TakenOver >= d.Tallies[2].TakenOver/2:
			t.Errorf("%s: %d accounts taken over, the most careless lets %d be", tally.Defence, tally.TakenOver, d.Tallies[2].TakenOver)
		}
		// A small town has the same trickles as a large one, and fewer attempts to measure them by.
		if tally.Reached*5 > d.best() {
			t.Errorf("%s: %d attempts reached the upstream, with the best other %d", tally.Defence, tally.Reached, d.best())
		}
		for _, attack := range d.Attacks {
			if h := tally.Attacks[attack]; h.Noticed == "" && attack != "right-guess" {
				t.Errorf("%s never noticed %s", tally.Defence, attack)
			}
		}
	}
}

// TestSeed: the same seed gives the same input, and so the same answers of what draws no
// random keys of its own; another one another.
func TestSeed(t *testing.T) {
	s := small()
	input := func(seed uint64) [][]Login {
		w := NewWorld(s.habits, seed)
		all := [][]Login{w.Logins}
		for i := range attacks {
			all = append(all, w.Attack(s.attackers, i))
		}
		return all
	}
	first, again, other := input(1), input(1), input(2)
	for i := range first {
		if len(first[i]) == 0 || !slices.Equal(first[i], again[i]) {
			t.Errorf("stream %d of one seed isn't the same twice", i)
		}
		if slices.Equal(first[i], other[i]) {
			t.Errorf("stream %d is the same for two seeds", i)
		}
		if !slices.IsSortedFunc(first[i], func(a, b Login) int { return int(a.At - b.At) }) {
			t.Errorf("stream %d isn't by time", i)
		}
	}
	answers := func() []byte {
		w := NewWorld(s.habits, 1)
		tally := Replay(w, &s.attackers, newFail2ban(w), w.Logins, w.Attack(s.attackers, 2))
		tally.Seconds = 0
		text, err := json.Marshal(tally)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if a, b := answers(), answers(); !bytes.Equal(a, b) {
		t.Errorf("one seed, two answers:\n%s\n%s", a, b)
	}
}

// TestPrint: both forms say everything there is.
func TestPrint(t *testing.T) {
	s := small()
	s.habits.People, s.attack, s.why = 50, "one-password", true
	var text, object bytes.Buffer
	if err := run(s, &text); err != nil {
		t.Fatal(err)
	}
	if s.json = true; run(s, &object) != nil || !json.Valid(object.Bytes()) {
		t.Errorf("not JSON: %s", object.Bytes())
	}
	for _, word := range []string{"== one-password: 10,000 sources, one password ==", "imapwarden, optional", "per-address limits", "MiB"} {
		if !bytes.Contains(text.Bytes(), []byte(word)) {
			t.Errorf("%q is missing from\n%s", word, text.Bytes())
		}
	}
	if s.attack = "nonsense"; run(s, &text) == nil {
		t.Error("an unknown attack is no error")
	}
}

// TestSet: every parameter can be set, to what it prints.
func TestSet(t *testing.T) {
	s := small()
	for _, p := range s.parameters() {
		before := p.text()
		if err := set(s.parameters(), p.name, before); err != nil || p.text() != before {
			t.Errorf("%s=%s: %v, then %s", p.name, before, err, p.text())
		}
		if p.source == "" {
			t.Errorf("%s: where does its value come from?", p.name)
		}
	}
	if set(s.parameters(), "mistyped", "0.5") != nil || s.habits.Mistyped != 0.5 {
		t.Errorf("mistyped is %v after it was set to 0.5", s.habits.Mistyped)
	}
	for _, bad := range [][2]string{{"nonsense", "1"}, {"mistyped", "often"}} {
		if set(s.parameters(), bad[0], bad[1]) == nil {
			t.Errorf("%s=%s is no error", bad[0], bad[1])
		}
	}
}

// slow takes an hour for each answer.
type slow struct{ at []time.Duration }

func (*slow) Name() string { return "slow" }

func (d *slow) Login(l *Login) Answer {
	d.at = append(d.at, l.At)
	return Answer{Took: time.Hour, Busy: l.Account == 1 && len(d.at) < 3}
}

// TestReplay: a source waits for its answers, and what it has no time for isn't made; an attempt that
// finds another under way is tried again a little later.
func TestReplay(t *testing.T) {
	attackers := defaultAttackers()
	attackers.OneConnections = 1
	w := NewWorld(Habits{People: 2, HomesPerBlock: 1, Carriers: 1, CarrierBlocks: 1, CarrierHosts: 1, Hotels: 1, UpdateLater: 1, StaleRetry: 1, PageViews: 1, DeskReconnect: day, RoamReconnect: day}, 1)
	tries := func(account int32, at ...time.Duration) (out []Login) {
		for _, at := range at {
			out = append(out, Login{At: at, Account: account, Addr: webmail, From: 1})
		}
		return out
	}
	d := new(slow)
	tally := Replay(w, &attackers, d, tries(0, 22*time.Hour, 22*time.Hour+time.Minute, 23*time.Hour))
	if want := []time.Duration{22 * time.Hour, 23 * time.Hour}; !slices.Equal(d.at, want) || tally.Attempts != 2 || tally.Unmade != 1 {
		t.Errorf("made at %v, %d attempts, %d not; want %v, 2 and 1", d.at, tally.Attempts, tally.Unmade, want)
	}
	d = new(slow)
	tally = Replay(w, &attackers, d, tries(1, time.Hour))
	if want := []time.Duration{time.Hour, time.Hour + time.Second, time.Hour + 2*time.Second}; !slices.Equal(d.at, want) || tally.Attempts != 1 {
		t.Errorf("made at %v, counted as %d; want %v, as 1", d.at, tally.Attempts, want)
	}
}

func TestQueue(t *testing.T) {
	var q queue[int]
	for i, at := range []time.Duration{5, 1, 3, 1, 4, 1, 2} {
		q.add(at, i)
	}
	var out []int
	for now := time.Duration(0); now < 6; now++ {
		for item, ok := q.due(now); ok; item, ok = q.due(now) {
			out = append(out, item)
		}
	}
	if want := []int{1, 3, 5, 6, 2, 4, 0}; !slices.Equal(out, want) {
		t.Errorf("out came %v, want %v", out, want)
	}
}

// A visit is one login of the account 0, and what should come of it.
type visit struct {
	at    time.Duration
	right bool
	same  bool // a secret that was wrong before
	in    bool
	sees  bool // the upstream
	took  time.Duration
}

func TestBaselines(t *testing.T) {
	w := &World{Accounts: []account{{name: "a"}}}
	w.Accounts[0].changes = [versions]time.Duration{-never, never, never, never}
	w.Accounts[0].passwords[0] = owned
	const s, m = time.Second, time.Minute
	wrong := func(at time.Duration) visit { return visit{at: at, sees: true, took: 2 * s} }
	tests := []struct {
		name    string
		defence Defence
		visits  []visit
	}{
		{"fail2ban bans after five failures, for ten minutes", newFail2ban(w), []visit{
			wrong(0), wrong(s), wrong(2 * s),
			{at: 3 * s, right: true, in: true, sees: true},
			wrong(4 * s), wrong(5 * s),
			{at: 6 * s, right: true},
			{at: 10 * m, right: true},
			{at: 10*m + 5*s, right: true, in: true, sees: true},
		}},
		{"fail2ban forgets what is older than ten minutes", newFail2ban(w), []visit{
			wrong(0), wrong(5 * m), wrong(11 * m), wrong(16 * m), wrong(22 * m), wrong(27 * m), {at: 28 * m, right: true, in: true, sees: true},
		}},
		{"the penalty delays", newPenalty(w), []visit{
			wrong(0),
			{at: s, sees: true, took: 4 * s},
			{at: 2 * s, sees: true, took: 8 * s},
			{at: 3 * s, sees: true, took: 15 * s},
			{at: 4 * s, sees: true, took: 15 * s},
			{at: 5 * s, right: true, in: true, sees: true, took: 15 * s},
			{at: 6 * s, right: true, in: true, sees: true},
			wrong(7 * s),
		}},
		{"the penalty is forgotten after 15 seconds", newPenalty(w), []visit{
			wrong(0), {at: 10 * s, sees: true, took: 4 * s}, {at: 24 * s, sees: true, took: 8 * s}, wrong(40 * s),
		}},
		{"the penalty counts a repeated secret once", newPenalty(w), []visit{
			{at: 0, same: true, sees: true, took: 2 * s}, {at: s, same: true, sees: true, took: 4 * s}, {at: 2 * s, same: true, sees: true, took: 4 * s},
		}},
		{"ten failures a minute", newAddressLimits(w), []visit{
			wrong(0), wrong(0), wrong(0), wrong(0), wrong(0), wrong(0), wrong(0), wrong(0), wrong(0), wrong(0),
			{at: s, right: true, took: 2 * s},
			{at: 7 * s, right: true, in: true, sees: true},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for i, v := range tt.visits {
				l := Login{At: v.at, Addr: netip.MustParseAddr("24.0.0.1"), Secret: owned}
				if !v.right {
					l.Secret = guessed + Secret(i)
				}
				if v.same {
					l.Secret = guessed
				}
				got := tt.defence.Login(&l)
				if got.In != v.in || got.Reached != v.sees || got.Took != v.took {
					t.Errorf("visit %d at %s: in %t, reached %t, took %s; want %t, %t, %s", i, v.at, got.In, got.Reached, got.Took, v.in, v.sees, v.took)
				}
			}
		})
	}
}

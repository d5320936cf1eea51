package main

import (
	"math"
	"strings"
	"testing"
	"time"

	"imapwarden/audit"
)

// TestBench is a run that is too small to measure anything, but makes every kind of login.
func TestBench(t *testing.T) {
	var out strings.Builder
	s := settings{accounts: 30, appPasswords: 90, events: 10, rounds: 2, logins: 2, parallel: 2, folder: t.TempDir(), quick: true}
	if err := bench(t.Context(), s, &out); err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		if !strings.Contains(out.String(), "\n"+k.name+" ") {
			t.Errorf("%s isn't in the report:\n%s", k.name, out.String())
		}
	}
}

func TestRatio(t *testing.T) {
	for _, c := range []struct {
		name             string
		own, base        []float64
		ratio, deviation float64
	}{
		{"what slows both down cancels out", []float64{12, 24, 36}, []float64{10, 20, 30}, 1.2, 0},
		// Residuals 2 and -2: sqrt(8 / (2 × 1)) / 10.
		{"what slows one down doesn't", []float64{12, 8}, []float64{10, 10}, 1, 0.2},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, deviation := ratio(c.own, c.base)
			if math.Abs(r-c.ratio) > 1e-9 || math.Abs(deviation-c.deviation) > 1e-9 {
				t.Errorf("got %f, error %f; want %f, error %f", r, deviation, c.ratio, c.deviation)
			}
		})
	}
}

func TestPerLogin(t *testing.T) {
	if got := perLogin([]time.Duration{3 * time.Millisecond}, 2); len(got) != 1 || got[0] != 1500 {
		t.Errorf("got %v µs, want 1500", got)
	}
}

func TestCompare(t *testing.T) {
	accepted := audit.Event{Kind: "login", Outcome: audit.Accepted, Account: "a", Factor: "grant"}
	byCode, refused, other := accepted, accepted, audit.Event{Kind: "session.program", Account: "a"}
	byCode.Factor, refused.Outcome = "code", audit.Refused
	for _, c := range []struct {
		name   string
		events []audit.Event
		ok     bool
	}{
		{"as it was done", []audit.Event{accepted, other, accepted}, true},
		{"one is missing", []audit.Event{accepted}, false},
		{"one is too many", []audit.Event{accepted, accepted, accepted}, false},
		{"one by another factor", []audit.Event{accepted, byCode}, false},
		{"one more by another factor", []audit.Event{accepted, accepted, byCode}, false},
		{"one refused", []audit.Event{accepted, refused}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := compare(c.events, map[login]int{{"a", "grant"}: 2}); err == nil != c.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

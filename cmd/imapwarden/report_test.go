package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"imapwarden/audit"
	"imapwarden/auth"
)

func TestLockedOut(t *testing.T) {
	way := func(factor auth.Factor, program string, hour int) audit.Way {
		return audit.Way{Factor: string(factor), Program: program, Count: 1, Last: time.Date(2026, 11, 1, hour, 0, 0, 0, time.UTC)}
	}
	for _, row := range []struct {
		name string
		ways []audit.Way
		want []string
	}{
		{"never signed in", nil, nil},
		{"the password alone", []audit.Way{way(auth.FactorNone, "A", 1)}, []string{"A"}},
		{"a code", []audit.Way{way(auth.FactorCode, "A", 1)}, nil},
		{"a code since", []audit.Way{way(auth.FactorCode, "A", 2), way(auth.FactorNone, "A", 1)}, nil},
		{"a code at the same time", []audit.Way{way(auth.FactorCode, "A", 1), way(auth.FactorNone, "A", 1)}, nil},
		{"a code before", []audit.Way{way(auth.FactorCode, "A", 1), way(auth.FactorNone, "A", 2)}, []string{"A"}},
		{"several before and one since", []audit.Way{
			way(auth.FactorAppPassword, "A", 1), way(auth.FactorCode, "A", 1), way(auth.FactorGrant, "A", 3), way(auth.FactorNone, "A", 2),
		}, nil},
		{"another program's code", []audit.Way{way(auth.FactorAppPassword, "B", 2), way(auth.FactorNone, "A", 1)}, []string{"A"}},
		{"one program of two, without a name", []audit.Way{
			way(auth.FactorCode, "A", 2), way(auth.FactorNone, "", 1), way(auth.FactorNone, "A", 1),
		}, []string{""}},
		{"two programs", []audit.Way{way(auth.FactorNone, "A", 1), way(auth.FactorNone, "B", 1)}, []string{"A", "B"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := lockedOut(row.ways); !slices.Equal(got, row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

// crowd is 1,200 accounts that are known, every third of them with a sign-in, besides 600
// that aren't known and signed in.
type crowd struct {
	accounts
	asked int // the most that was asked for at once
}

func (c *crowd) page(names func(yield func(string)), after string, limit int) (list []string) {
	c.asked = max(c.asked, limit)
	names(func(name string) {
		if name > after && len(list) < limit {
			list = append(list, name)
		}
	})
	return list
}

func (c *crowd) List(_ context.Context, after string, limit int) (list []auth.Summary, err error) {
	for _, name := range c.page(func(yield func(string)) {
		for i := range 1200 {
			yield(fmt.Sprintf("a%04d", i))
		}
	}, after, limit) {
		list = append(list, auth.Summary{Account: name, Enrolled: true})
	}
	return list, nil
}

func (c *crowd) Ways(_ context.Context, _ time.Time, after string, limit int) (ways []audit.Way, err error) {
	for _, name := range c.page(func(yield func(string)) {
		for i := 0; i < 1800; i++ {
			if i >= 1200 || i%3 == 0 {
				yield(fmt.Sprintf("a%04d", i))
			}
		}
	}, after, limit) {
		ways = append(ways, audit.Way{Account: name, Factor: "code", Count: 1}, audit.Way{Account: name, Factor: "none", Count: 1, Last: time.Unix(1, 0)})
	}
	return ways, nil
}

func (*crowd) Events(context.Context, audit.Filter) ([]audit.Event, error) { return nil, nil }
func (*crowd) Mark(context.Context, string) (string, error)                { return "", nil }

func TestReportPages(t *testing.T) {
	var c crowd
	var out bytes.Buffer
	if err := (&options{json: true, stdout: &out}).report(t.Context(), &c, &c, time.Time{}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 1800 {
		t.Errorf("%d accounts, want 1,800", len(lines))
	}
	for i, line := range lines {
		var u usage
		if err := json.Unmarshal([]byte(line), &u); err != nil {
			t.Fatal(err)
		}
		signedIn := i >= 1200 || i%3 == 0
		if u.Account != fmt.Sprintf("a%04d", i) || u.Enrolled != (i < 1200) || (len(u.SignIns) == 2) != signedIn || u.LockedOut != signedIn {
			t.Fatalf("line %d: %+v", i, u)
		}
	}
	if c.asked != page {
		t.Errorf("asked for %d accounts at once, want pages of %d", c.asked, page)
	}

	// People are told the names of those that are locked out, but not without end.
	out.Reset()
	if err := (&options{stdout: &out}).report(t.Context(), &c, &c, time.Time{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{", 1000 of 1800 accounts signed in.\n", "lock out 1000 accounts"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the summary lacks %q", want)
		}
	}
}

func TestSummaryNamesSome(t *testing.T) {
	var s summary
	for i := range maxNamed + 3 {
		s.add(usage{Account: fmt.Sprint("a", i), LockedOut: true})
	}
	var out bytes.Buffer
	if err := (&options{stdout: &out}).printSummary(s, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), "\n    a"); got != maxNamed+1 || !strings.Contains(out.String(), "and 3 more;") {
		t.Errorf("%d names, want %d and how many more", got, maxNamed)
	}
}

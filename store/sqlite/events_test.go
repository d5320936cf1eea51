package sqlite_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"imapwarden/audit"
)

// An older server that still runs when a newer one opens the store must not break the chain.
func TestEventsWithoutHashAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s := open(t, path)
	must(t, s.Append(t.Context(), []audit.Event{{Kind: "login"}}))
	const old = `INSERT INTO events (time, kind, outcome, session, account, source, source_key, program, factor, reason, rule, detail)
		VALUES (0, 'login', '', '', '', '', NULL, '', '', '', '', '')`
	if _, err := raw(t, path).Exec(old); err == nil || !strings.Contains(err.Error(), "end the older imapwarden") {
		t.Errorf("an insert as of the first version: %v", err)
	}
	must(t, s.Append(t.Context(), []audit.Event{{Kind: "login"}}))
	chained(t, s, 2)
}

// What was put behind the program's back, and isn't part of a hash, is found all the same.
func TestHiddenTampering(t *testing.T) {
	at := time.Date(2026, 11, 22, 19, 26, 30, 0, time.UTC)
	for name, test := range map[string]struct {
		change, problem string
	}{
		"an event of ID 0": {`INSERT INTO events SELECT 0, time, kind, outcome, session, 'mallory', source, source_key, program, factor, reason, rule, detail, hash
			FROM events WHERE id = 1`, "event 0 was inserted"},
		"an event below it": {`INSERT INTO events SELECT -9, time, kind, outcome, session, 'mallory', source, source_key, program, factor, reason, rule, detail, hash
			FROM events WHERE id = 2`, "event -9 was inserted"},
		"filed under another address": {`UPDATE events SET source_key = x'00000000000000000000ffffc0000209' WHERE id = 2`, "event 2 was changed"},
		"filed under none":            {`UPDATE events SET source_key = NULL WHERE id = 2`, "event 2 was changed"},
		"no address, and filed":       {`UPDATE events SET source_key = x'00000000000000000000ffffc0000209' WHERE id = 3`, "event 3 was changed"},
		"nothing":                     {`SELECT 1`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			s := open(t, path)
			login := audit.Event{Time: at, Kind: "login", Outcome: audit.Accepted, Account: "alice", Factor: "code", Source: "::ffff:192.0.2.1"}
			nowhere := login
			nowhere.Source = "unix"
			must(t, s.Append(t.Context(), []audit.Event{login, login, nowhere}))
			_, err := raw(t, path).Exec(test.change)
			must(t, err)
			report, err := audit.Verify(t.Context(), s, nil)
			must(t, err)
			problem := ""
			if report.Broken != nil {
				problem = report.Broken.Problem
			}
			if !strings.HasPrefix(problem, test.problem) || test.problem == "" && problem != "" {
				t.Errorf("verify says %q, want %q", problem, test.problem)
			}
			ways, err := s.Ways(t.Context(), time.Time{}, "", 100)
			must(t, err)
			if len(ways) != 1 || ways[0].Account != "alice" || ways[0].Count != 3 {
				t.Errorf("the ways are %+v", ways)
			}
		})
	}
}

package storetest

import (
	"testing"
	"time"

	"imapwarden/audit"
)

func ways(t *testing.T, s Store) {
	login := func(account, factor, program, source string, minutes int) audit.Event {
		return audit.Event{
			Kind: "login", Outcome: audit.Accepted, Account: account, Factor: factor, Program: program,
			Source: source, Time: day.Add(time.Duration(minutes) * time.Minute),
		}
	}
	told := func(e audit.Event) audit.Event { e.Kind = "session.program"; return e }
	with := func(e audit.Event, change func(*audit.Event)) audit.Event {
		change(&e)
		return e
	}
	must(t, s.Append(t.Context(), []audit.Event{
		login("carol", "grant", "Mail", "192.0.2.9", 0),
		login("alice", "grant", "Mail", "192.0.2.1", 1),
		login("alice", "grant", "Mail", "192.0.2.2", 5),
		login("alice", "grant", "Mail", "192.0.2.3", 3), // written late
		login("alice", "grant", "", "192.0.2.4", 4),
		login("alice", "code", "Mail", "192.0.2.5", 6),
		login("bob", "none", "Post", "192.0.2.6", 7),
		login("bob", "none", "Post", "192.0.2.7", 7),     // of two at once, the later written
		told(login("Z", "code", "Mail", "192.0.2.8", 2)), // only after its login it said what it is
		login("", "code", "Mail", "192.0.2.8", 2),
		with(login("alice", "grant", "Mail", "192.0.2.9", 9), func(e *audit.Event) { e.Outcome = audit.Refused }),
		with(login("alice", "grant", "Mail", "192.0.2.9", 9), func(e *audit.Event) { e.Outcome = audit.Failed }),
		with(login("dora", "", "", "", 9), func(e *audit.Event) { e.Kind = "account.reset" }),
	}))
	way := func(account, factor, program string, count int64, minutes int, source string) audit.Way {
		return audit.Way{
			Account: account, Factor: factor, Program: program, Count: count,
			Last: day.Add(time.Duration(minutes) * time.Minute), Source: source,
		}
	}
	all := []audit.Way{
		way("Z", "code", "Mail", 1, 2, "192.0.2.8"),
		way("alice", "code", "Mail", 1, 6, "192.0.2.5"),
		way("alice", "grant", "", 1, 4, "192.0.2.4"),
		way("alice", "grant", "Mail", 3, 5, "192.0.2.2"),
		way("bob", "none", "Post", 2, 7, "192.0.2.7"),
		way("carol", "grant", "Mail", 1, 0, "192.0.2.9"),
	}
	since := []audit.Way{
		all[1], all[2],
		way("alice", "grant", "Mail", 2, 5, "192.0.2.2"),
		all[4],
	}
	for _, test := range []struct {
		name  string
		since time.Time
		after string
		limit int
		want  []audit.Way
	}{
		{"all", time.Time{}, "", 100, all},
		{"a page", time.Time{}, "", 2, all[:4]},
		{"the next", time.Time{}, "alice", 2, all[4:]},
		{"exactly all", time.Time{}, "", 4, all},
		{"after one that isn't there", time.Time{}, "alicf", 1, all[4:5]},
		{"after all", time.Time{}, "carol", 100, nil},
		{"since", day.Add(3 * time.Minute), "", 100, since},
		{"since, the first", day.Add(3 * time.Minute), "", 1, since[:3]}, // accounts without don't count
		{"nobody", time.Time{}, "", 0, nil},
		{"fewer than nobody", time.Time{}, "", -1, nil},
		{"since ever after", day.AddDate(1, 0, 0), "", 100, nil},
	} {
		got, err := s.Ways(t.Context(), test.since, test.after, test.limit)
		must(t, err)
		same(t, test.name, got, test.want)
	}
}

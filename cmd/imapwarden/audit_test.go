package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"imapwarden/admin"
	"imapwarden/audit"
	"imapwarden/store/memory"
)

func TestAuditFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := memory.New()
		add := func(account string, n int) {
			for range n {
				if err := held.Append(t.Context(), []audit.Event{{Kind: "login", Account: account}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		var out bytes.Buffer
		o := &options{json: true, stdout: &out}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		add("early", 3)
		go func() {
			ended <- o.printEvents(ctx, &records{events: held}, audit.Filter{Account: "early", Limit: 2}, true)
		}()
		synctest.Wait()
		if got := strings.Count(out.String(), "early"); got != 2 {
			t.Errorf("%d events at first, want the limit of 2", got)
		}
		add("early", 5)
		add("other", 1)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := strings.Count(out.String(), "\n"); got != 7 {
			t.Errorf("%d events in the end, want all 5 new ones besides the first 2, each once", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("interrupted, it ended with %v", err)
		}
	})
}

// A server that is started anew ends nothing: what it did in the meantime comes, each
// event once, and the wait is said once.
func TestAuditFollowsThroughARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := memory.New()
		add := func() {
			if err := held.Append(t.Context(), []audit.Event{{Kind: "login", Account: "alice"}}); err != nil {
				t.Fatal(err)
			}
		}
		away := &sometimesAway{Store: held}
		var out, errs bytes.Buffer
		o := &options{json: true, stdout: &out, stderr: &errs}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		add()
		go func() {
			ended <- o.printEvents(ctx, &records{events: away}, audit.Filter{Limit: 10}, true)
		}()
		synctest.Wait()
		away.away.Store(true)
		time.Sleep(time.Minute)
		add()
		away.away.Store(false)
		time.Sleep(time.Minute)
		away.away.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := strings.Count(out.String(), "alice"); got != 2 {
			t.Errorf("%d events, want both once", got)
		}
		if got := strings.Count(errs.String(), "waiting for the server: away"); got != 2 {
			t.Errorf("said %d times that it waits, want once for each of two times:\n%s", got, errs.String())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("interrupted, it ended with %v", err)
		}

		// Where it can't begin, it says so.
		if err := o.printEvents(t.Context(), &records{events: away}, audit.Filter{Limit: 10}, true); err == nil {
			t.Error("without a server it waits for one")
		}
	})
}

type sometimesAway struct {
	*memory.Store
	away atomic.Bool
}

func (s *sometimesAway) Events(ctx context.Context, f audit.Filter) ([]audit.Event, error) {
	if s.away.Load() {
		return nil, errors.New("away")
	}
	return s.Store.Events(ctx, f)
}

// "none" is no reason, and where it is all that was asked for, it is worth a word.
func TestAuditFactor(t *testing.T) {
	for _, row := range []struct {
		event audit.Event
		want  string
	}{
		{audit.Event{Outcome: audit.Accepted, Factor: "none"}, "password alone"},
		{audit.Event{Outcome: audit.Accepted, Factor: "code"}, "code"},
		{audit.Event{Outcome: audit.Refused, Factor: "none", Reason: "no-code"}, "no-code"},
		{audit.Event{Outcome: audit.Refused, Factor: "code", Reason: "wrong-password"}, "code, wrong-password"},
		{audit.Event{Outcome: audit.Failed, Factor: "none", Detail: "no upstream"}, "no upstream"},
	} {
		var out bytes.Buffer
		if err := (&options{stdout: &out}).printEvent(row.event); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(out.String()); !strings.HasSuffix(got, "  "+row.want) {
			t.Errorf("%+v: %q, want %q at the end", row.event, got, row.want)
		}
	}
}

// A client says of itself what it likes, and must not move the reader's cursor.
func TestAuditLineIsHarmless(t *testing.T) {
	var out bytes.Buffer
	o := &options{stdout: &out}
	err := o.printEvent(audit.Event{
		Time: time.Date(2026, 11, 1, 12, 0, 0, 0, time.Local), Kind: "login", Outcome: audit.Refused,
		Account: "alice@example.org", Source: "203.0.113.7", Reason: "wrong-password",
		Program: "Mail\x1b[2J\nforged\u202eline",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "2026-11-01 12:00:00 " + time.Date(2026, 11, 1, 12, 0, 0, 0, time.Local).Format("-0700") + "  login                refused   alice@example.org               203.0.113.7      wrong-password, Mail?[2J?forged?line\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

// A library gives no more events at once than a server does.
type library struct {
	*memory.Store
	t     *testing.T
	total atomic.Int64 // events, with the IDs from 1 on
	asked int
}

func (l *library) Events(_ context.Context, f audit.Filter) (events []audit.Event, err error) {
	if l.asked++; f.Limit < 1 || f.Limit > admin.MaxEvents {
		l.t.Errorf("%d events were asked for at once", f.Limit)
	}
	first, last := f.After+1, l.total.Load()
	if f.Before > 0 {
		last = min(last, f.Before-1)
	}
	if f.Oldest {
		last = min(last, f.After+int64(f.Limit))
	}
	for id := max(first, last-int64(f.Limit)+1); id <= last; id++ {
		events = append(events, audit.Event{ID: id, Kind: "login"})
	}
	return events, nil
}

// A long list and a long absence are asked for in parts, and nothing is left out.
func TestAuditInParts(t *testing.T) {
	for _, row := range []struct {
		total        int64
		limit, asked int
		first        int64
	}{
		{25_000, 100, 1, 24_901},
		{25_000, 10_000, 1, 15_001},
		{25_000, 10_001, 2, 15_000},
		{25_000, 100_000, 3, 1},
		{20_000, 30_000, 3, 1}, // only the third is short
		{0, 100_000, 1, 0},
	} {
		held := &library{t: t}
		held.total.Store(row.total)
		events, err := newest(t.Context(), held, audit.Filter{Limit: row.limit})
		if err != nil {
			t.Fatal(err)
		}
		if len(events) != min(int(row.total), row.limit) || held.asked != row.asked {
			t.Errorf("%d of %d: %d events, asked %d times", row.limit, row.total, len(events), held.asked)
		}
		for i, e := range events {
			if e.ID != row.first+int64(i) {
				t.Fatalf("%d of %d: event %d at %d", row.limit, row.total, e.ID, i)
			}
		}
	}

	synctest.Test(t, func(t *testing.T) {
		held := &library{t: t}
		held.total.Store(5)
		var out bytes.Buffer
		o := &options{json: true, stdout: &out}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- o.printEvents(ctx, &records{events: held}, audit.Filter{Limit: 2}, true)
		}()
		synctest.Wait()
		held.total.Store(25_000)
		time.Sleep(time.Second)
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := strings.Count(out.String(), "\n"); got != 24_997 {
			t.Errorf("%d events, want the 2 newest and all that came", got)
		}
	})
}

func TestAuditLimit(t *testing.T) {
	for limit, good := range map[int]bool{-1: false, 0: false, 1: true, 100_000: true, 100_001: false} {
		err := new(records).choose(&audit.Filter{Limit: limit}, "", "", "")
		if good != (err == nil) {
			t.Errorf("--limit %d: %v", limit, err)
		}
	}
}

// A limit's signal is reason and rule in one; a rule of the administrator's has a name.
func TestAuditWhy(t *testing.T) {
	for want, e := range map[string]audit.Event{
		"  unproved, Mail\n":              {Factor: "none", Reason: "unproved", Rule: "unproved", Program: "Mail"},
		"  rule-denied, office, no way\n": {Factor: "none", Reason: "rule-denied", Rule: "office", Detail: "no way"},
		"  password alone, office\n":      {Outcome: audit.Accepted, Factor: "none", Rule: "office"},
	} {
		var out bytes.Buffer
		if err := (&options{stdout: &out}).printEvent(e); err != nil || !strings.HasSuffix(out.String(), want) {
			t.Errorf("%q, %v; want %q at its end", out.String(), err, want)
		}
	}
}

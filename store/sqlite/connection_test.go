package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"imapwarden/audit"
)

// Whether a write reaches the disk can't be seen from outside.
func TestSettings(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "a.db"))
	must(t, err)
	defer s.Close()
	for _, test := range []struct {
		db           *sql.DB
		pragma, want string
	}{
		{s.write, "journal_mode", "wal"},
		{s.write, "synchronous", "2"}, // FULL
		{s.write, "auto_vacuum", "2"}, // INCREMENTAL
		{s.write, "foreign_keys", "1"},
		{s.write, "busy_timeout", "5000"},
		{s.read, "busy_timeout", "5000"},
		{s.read, "query_only", "1"},
	} {
		var got string
		if err := test.db.QueryRow("PRAGMA " + test.pragma).Scan(&got); err != nil {
			t.Error(err)
		} else if got != test.want {
			t.Errorf("%s is %s, want %s", test.pragma, got, test.want)
		}
	}
}

// While another process holds the file, readers go on, and a writer waits no
// longer than its context.
func TestWaitEndsWithTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db")
	s, err := Open(t.Context(), path)
	must(t, err)
	defer s.Close()
	other, err := Open(t.Context(), path)
	must(t, err)
	defer other.Close()
	tx, err := other.write.BeginTx(t.Context(), nil)
	must(t, err)

	_, err = s.Mark(t.Context(), "key")
	must(t, err)
	// One takes our connection for writing and waits for the file, one waits for that.
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	for range 2 {
		go func() { errs <- s.SetMark(ctx, "key", "1") }()
	}
	for s.write.Stats().WaitCount == 0 {
		select {
		case err := <-errs:
			t.Fatalf("a writer didn't wait: %v", err)
		default:
			runtime.Gosched()
		}
	}
	cancel()
	for range 2 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	}
	must(t, tx.Rollback())
	value, err := s.Mark(t.Context(), "key")
	must(t, err)
	if value != "" {
		t.Errorf("the mark is %q, though both that set it gave up", value)
	}
	must(t, s.SetMark(t.Context(), "key", "2"))
}

// What events took is given back. A file from before that goes on as it was.
func TestPurgedEventsFreeTheirPages(t *testing.T) {
	for _, test := range []struct {
		vacuum string
		free   bool
	}{{"INCREMENTAL", false}, {"NONE", true}} {
		s, err := Open(t.Context(), filepath.Join(t.TempDir(), "a.db"))
		must(t, err)
		defer s.Close()
		_, err = s.write.Exec("PRAGMA auto_vacuum = " + test.vacuum + "; VACUUM")
		must(t, err)
		before := number(t, s.write, "PRAGMA page_count")
		events := slices.Repeat([]audit.Event{{Kind: "login", Detail: strings.Repeat("x", 3500)}}, 400)
		must(t, s.Append(t.Context(), events))
		full := number(t, s.write, "PRAGMA page_count")
		if full < before+vacuumBatch {
			t.Fatalf("%d pages with events and %d without: one batch frees them", full, before)
		}

		removed, err := s.PurgeEvents(t.Context(), time.Now(), 1)
		must(t, err)
		after, free := number(t, s.write, "PRAGMA page_count"), number(t, s.write, "PRAGMA freelist_count")
		if removed != 400 || (free > 0) != test.free || (after == full) != test.free || after-free > before+5 {
			t.Errorf("%s: removed %d; %d pages at first, %d with events, %d afterwards with %d free",
				test.vacuum, removed, before, full, after, free)
		}
		must(t, s.Append(t.Context(), events))
		if again := number(t, s.write, "PRAGMA page_count"); again > full+5 {
			t.Errorf("%s: %d pages with new events, %d with the old ones", test.vacuum, again, full)
		}
	}
}

func number(t *testing.T, db *sql.DB, query string) (n int) {
	t.Helper()
	must(t, db.QueryRow(query).Scan(&n))
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

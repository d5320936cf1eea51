package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"runtime"
	"testing"
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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

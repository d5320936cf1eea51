package sqlite

import (
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"imapwarden/audit"
)

// Who reads of a disk that is full or broken must learn that it is the disk.
func TestAdviceOnTheDisk(t *testing.T) {
	for advice, damage := range map[string]func(t *testing.T, s *Store){
		"make room": func(t *testing.T, s *Store) {
			_, err := s.write.ExecContext(t.Context(), `PRAGMA max_page_count = 1`) // the fewest that it has
			must(t, err)
		},
		"the kernel's log": func(t *testing.T, _ *Store) {
			signal.Ignore(syscall.SIGXFSZ) // a write then fails with EFBIG
			var before syscall.Rlimit
			must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before))
			must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 4096, Max: before.Max}))
			t.Cleanup(func() { must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before)) })
		},
	} {
		t.Run(advice, func(t *testing.T) {
			s, err := Open(t.Context(), filepath.Join(t.TempDir(), "a.db"))
			must(t, err)
			defer s.Close()
			damage(t, s)
			err = s.Append(t.Context(), []audit.Event{{Kind: "login", Detail: strings.Repeat("x", 1<<20)}})
			if err == nil || !strings.Contains(err.Error(), advice) {
				t.Errorf("got %v, want advice on %s", err, advice)
			}
		})
	}
}

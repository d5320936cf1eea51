package store_test

import (
	"path/filepath"
	"strings"
	"testing"

	"imapwarden/store"
)

func TestOpen(t *testing.T) {
	for _, url := range []string{"memory:", "sqlite:" + filepath.Join(t.TempDir(), "a.db")} {
		s, err := store.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SetMark(t.Context(), "key", "1"); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for url, want := range map[string]string{
		"":                                   "no scheme",
		"/var/lib/imapwarden.db":             "no scheme",
		"memory:x":                           "nothing after the colon",
		"sqlite:":                            "no file is named",
		"sqlite:/nowhere/at/all.db":          "/nowhere/at doesn't exist",
		"postgres://warden:hunter2@db/store": `unknown scheme "postgres"`,
		"SQLITE:x.db":                        `unknown scheme "SQLITE"`,
	} {
		s, err := store.Open(t.Context(), url)
		if err == nil {
			s.Close()
			t.Errorf("%s: opened", url)
			continue
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %q, want it to say %q", url, err, want)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is in the error: %v", err)
		}
	}
}

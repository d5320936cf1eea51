package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// An export is an Exporter that runs until the test stops it.
type export struct {
	t     *testing.T
	store *fakeStore
	path  string
	logs  *observer.ObservedLogs
	end   context.CancelFunc
	done  chan error
}

// exporting runs an Exporter inside a bubble.
func exporting(t *testing.T, s *fakeStore, path string) *export {
	core, logs := observer.New(zap.InfoLevel)
	x := &Exporter{Path: path, Source: s, Log: zap.New(core)}
	ctx, cancel := context.WithCancel(t.Context())
	e := &export{t: t, store: s, path: path, logs: logs, end: cancel, done: make(chan error, 1)}
	go func() { e.done <- x.Run(ctx) }()
	synctest.Wait()
	return e
}

// stop ends it and waits for it.
func (e *export) stop() {
	e.t.Helper()
	e.end()
	must(e.t, <-e.done)
}

// pass lets it go on for n seconds.
func pass(n int) {
	time.Sleep(time.Duration(n) * time.Second)
	synctest.Wait()
}

// has checks which events a file has: their IDs, as in "1-5 8".
func has(t *testing.T, path, want string) {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	var got []string
	first, last := int64(0), int64(0)
	flush := func() {
		if last > 0 {
			got = append(got, strings.TrimSuffix(fmt.Sprintf("%d-%d", first, last), fmt.Sprintf("-%d", first)))
		}
	}
	for line := range strings.Lines(string(text)) {
		var e Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || !strings.HasSuffix(line, "}\n") {
			t.Fatalf("%s: line %q: %v", path, line, err)
		}
		if !strings.Contains(line, `"Mail <1> & `) || e.Hash.IsZero() || e.Program != "Mail <1> & \u2028" {
			t.Fatalf("not the event as it was: %s", line)
		}
		if e.ID != last+1 || last == 0 {
			flush()
			first = e.ID
		}
		last = e.ID
	}
	flush()
	if s := strings.Join(got, " "); s != want {
		t.Errorf("%s has events %q, want %q", filepath.Base(path), s, want)
	}
}

// logged checks the log: a part of each entry's message and fields.
func (e *export) logged(want ...string) {
	e.t.Helper()
	entries := e.logs.TakeAll()
	for i, entry := range entries {
		text := fmt.Sprint(entry.Message, entry.ContextMap())
		if i >= len(want) || !strings.Contains(text, want[i]) {
			e.t.Errorf("logged %q", text)
		}
	}
	if len(entries) != len(want) {
		e.t.Errorf("%d entries in the log, want %q", len(entries), want)
	}
}

func TestExportFollowsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, path := newFakeStore(), filepath.Join(t.TempDir(), "audit.jsonl")
		s.add(2500)
		e := exporting(t, s, path)
		has(t, path, "1-2500")
		s.add(1)
		has(t, path, "1-2500")
		pass(1)
		has(t, path, "1-2501")
		if mark := s.marks["audit-file"]; mark != FormatMark(2501, s.head) {
			t.Errorf("the mark is %q", mark)
		}
		s.add(1) // in the moment of the end
		e.stop()
		has(t, path, "1-2502")
		e.logged()
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	})
}

// Where to go on: behind what the file has, or else the mark, or else from the beginning.
func TestExportGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, path := newFakeStore(), filepath.Join(t.TempDir(), "audit.jsonl")
		s.add(5)
		exporting(t, s, path).stop()
		s.add(3)
		s.marks["audit-file"] = "" // a crash before it was set
		e := exporting(t, s, path)
		has(t, path, "1-8")
		e.stop()

		must(t, os.Rename(path, path+".1"))
		s.add(2)
		e = exporting(t, s, path)
		has(t, path, "9-10")
		e.stop()
		e.logged()
	})
}

func TestExportAfterACrashInALine(t *testing.T) {
	for name, tail := range map[string]string{
		"in the text":       `{"id":4,"time":"2026-`,
		"at once":           `{`,
		"all but its end":   `{"id":4,"time":"2026-11-22T22:00:00Z","kind":"login","outcome":"refused"}`,
		"filled with zeros": `{"id":4,"ti` + strings.Repeat("\x00", 5000),
		"only zeros":        strings.Repeat("\x00", 5000),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, before := range []int{0, 3} {
					s, path := newFakeStore(), filepath.Join(t.TempDir(), "audit.jsonl")
					s.add(before)
					exporting(t, s, path).stop()
					text, err := os.ReadFile(path)
					must(t, err)
					must(t, os.WriteFile(path, append(text, tail...), 0o600))
					s.add(2)
					e := exporting(t, s, path)
					has(t, path, fmt.Sprintf("1-%d", before+2))
					e.stop()
					e.logged()
				}
			})
		})
	}
}

// addSixth leaves what a write leaves that was done and all the same failed.
func addSixth(path string) error {
	s := newFakeStore()
	s.add(6)
	text, err := os.ReadFile(path)
	line := bytes.NewBuffer(text)
	return errors.Join(err, writeLine(line, s.events[5]), os.Remove(path), os.WriteFile(path, line.Bytes(), 0o600))
}

func TestExportRotation(t *testing.T) {
	for name, test := range map[string]struct {
		rotate func(path string) error
		want   string
	}{
		"renamed":             {func(p string) error { return os.Rename(p, p+".1") }, "6-8"},
		"renamed and created": {func(p string) error { return errors.Join(os.Rename(p, p+".1"), os.WriteFile(p, nil, 0o600)) }, "6-8"},
		"truncated":           {func(p string) error { return os.Truncate(p, 0) }, "6-8"},
		"truncated in a line": {func(p string) error { return os.Truncate(p, 500) }, "1 6-8"},
		"removed":             {os.Remove, "6-8"},
		"ahead of us":         {addSixth, "1-8"},
		"untouched":           {func(string) error { return nil }, "1-8"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, path := newFakeStore(), filepath.Join(t.TempDir(), "audit.jsonl")
				s.add(5)
				e := exporting(t, s, path)
				must(t, test.rotate(path))
				s.add(2)
				pass(1)
				s.add(1)
				e.stop()
				has(t, path, test.want)
				if _, err := os.Stat(path + ".1"); err == nil {
					has(t, path+".1", "1-5")
				}
				e.logged()
			})
		})
	}
}

// Whatever goes wrong is logged once, and nothing is missing or there twice when it is over.
func TestExportTroubles(t *testing.T) {
	for name, test := range map[string]struct {
		begin, end func(s *fakeStore, folder string) error
		logged     string
		files      []string
		want       string
	}{
		"the folder is gone": {
			func(_ *fakeStore, f string) error { return os.Rename(f, f+".away") },
			func(_ *fakeStore, f string) error { return os.Rename(f+".away", f) },
			"no such file or directory", nil, "1-8",
		},
		"another folder is back": {
			func(_ *fakeStore, f string) error { return os.RemoveAll(f) },
			func(_ *fakeStore, f string) error { return os.Mkdir(f, 0o700) },
			"no such file or directory", nil, "6-8",
		},
		"a folder in the way": {
			func(_ *fakeStore, f string) error {
				return errors.Join(os.Remove(f+"/audit.jsonl"), os.Mkdir(f+"/audit.jsonl", 0o700))
			},
			func(_ *fakeStore, f string) error { return os.Remove(f + "/audit.jsonl") },
			"isn't a regular file", nil, "6-8",
		},
		"the store is away": {
			func(s *fakeStore, _ string) error { s.failed = errDisk; return nil },
			func(s *fakeStore, _ string) error { s.failed = nil; return nil },
			"disk full", nil, "1-8",
		},
		"the chain's mark is unreadable": {
			func(s *fakeStore, _ string) error { s.purge(5); s.marks[ChainMark] = "17"; return nil },
			func(s *fakeStore, _ string) error { s.marks[ChainMark] = FormatMark(5, Hash{1}); return nil },
			"reading the mark audit-chain", nil, "1-8",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, folder := newFakeStore(), filepath.Join(t.TempDir(), "log")
				path := filepath.Join(folder, "audit.jsonl")
				must(t, os.Mkdir(folder, 0o700))
				s.add(5)
				e := exporting(t, s, path)
				must(t, test.begin(s, folder))
				s.add(2)
				pass(10)
				e.logged(test.logged)
				must(t, test.end(s, folder))
				s.add(1)
				pass(1)
				e.logged("written again")
				has(t, path, test.want)
				e.stop()
				e.logged()
			})
		})
	}
}

// A write that fails in the middle leaves nothing behind, and all of it follows later.
func TestExportToAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, path := newFakeStore(), filepath.Join(t.TempDir(), "audit.jsonl")
		s.add(5)
		e := exporting(t, s, path)
		before, err := os.Stat(path)
		must(t, err)
		lift := limitFileSize(t, before.Size()+700)
		s.add(3)
		pass(10)
		lift()
		e.logged("file too large")
		has(t, path, "1-5")
		pass(1)
		e.logged("written again")
		has(t, path, "1-8")
		e.stop()
	})
}

// What isn't ours is neither written to nor cut.
func TestExportRefusesForeignFiles(t *testing.T) {
	for name, test := range map[string]struct {
		make   func(path string) error
		logged string
	}{
		"another log":    {func(p string) error { return os.WriteFile(p, []byte("Nov 22 started\n"), 0o600) }, "is no audit event"},
		"another JSON":   {func(p string) error { return os.WriteFile(p, []byte("{\"level\":\"info\"}\n"), 0o600) }, "is no audit event"},
		"a key":          {func(p string) error { return os.WriteFile(p, []byte("c2VjcmV0"), 0o600) }, "no part of an audit event"},
		"one long line":  {func(p string) error { return os.WriteFile(p, []byte(`{"id":`+strings.Repeat("1", maxLine)), 0o600) }, "no part of an audit event"},
		"a link":         {func(p string) error { return errors.Join(os.WriteFile(p+".x", nil, 0o600), os.Symlink(p+".x", p)) }, "isn't a regular file"},
		"a dangling one": {func(p string) error { return os.Symlink(p+".x", p) }, "isn't a regular file"},
		"a device":       {func(p string) error { return os.Symlink("/dev/null", p) }, "isn't a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, path := newFakeStore(), filepath.Join(t.TempDir(), "audit.jsonl")
				must(t, test.make(path))
				before, _ := os.ReadFile(path)
				s.add(3)
				e := exporting(t, s, path)
				pass(3)
				e.stop()
				e.logged(test.logged)
				if after, _ := os.ReadFile(path); !slices.Equal(before, after) {
					t.Errorf("changed from %d to %d octets", len(before), len(after))
				}
				if s.marks["audit-file"] != "" {
					t.Error("marked as written")
				}
			})
		})
	}
}

func TestExportSaysWhatWasPurged(t *testing.T) {
	for name, test := range map[string]struct {
		change func(s *fakeStore)
		want   string
		logged []string
	}{
		"all of it written":   {func(s *fakeStore) { s.purge(5); s.add(3) }, "1-8", nil},
		"some of it written":  {func(s *fakeStore) { s.purge(3); s.add(3) }, "1-8", nil},
		"some not written":    {func(s *fakeStore) { s.add(4); s.purge(7); s.add(1) }, "1-5 8-10", []string{"after:5", "up_to:7"}},
		"none left":           {func(s *fakeStore) { s.add(4); s.purge(9) }, "1-5", []string{"after:5", "up_to:9"}},
		"IDs that never were": {func(s *fakeStore) { s.lastID += 3; s.add(2) }, "1-5 9-10", nil},
		"a purge meanwhile": {func(s *fakeStore) {
			s.lastID += 3
			s.add(2)
			s.purge(5)
			s.then(func() { s.purge(1) })
		}, "1-5 9-10", nil},
		"two purges": {func(s *fakeStore) {
			s.add(4)
			s.purge(7)
			s.then(func() { s.purge(1) })
		}, "1-5 8-9", []string{"after:5", "up_to:7"}},
		"these, and a purge": {func(s *fakeStore) { s.lastID += 3; s.add(2); s.purge(5) }, "1-5 9-10", nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, path := newFakeStore(), filepath.Join(t.TempDir(), "audit.jsonl")
				s.add(5)
				e := exporting(t, s, path)
				test.change(s)
				pass(3)
				has(t, path, test.want)
				for _, part := range test.logged {
					if text := fmt.Sprint(e.logs.All()[0].ContextMap()); !strings.Contains(text, part) {
						t.Errorf("logged %s, want %s in it", text, part)
					}
				}
				if n := e.logs.Len(); n != min(len(test.logged), 1) {
					t.Errorf("%d entries in the log", n)
				}
				e.stop()
			})
		})
	}
}

// A store without the events that the file has: nothing that it has may be missing.
func TestExportOfAnotherStore(t *testing.T) {
	for name, test := range map[string]struct {
		change func(s *fakeStore)
		want   string
	}{
		"a new one": {func(s *fakeStore) {
			s.events, s.lastID, s.head = nil, 0, Hash{}
			clear(s.marks)
			s.add(3)
		}, "1-5 1-3"},
		"a new and longer one": {func(s *fakeStore) {
			s.events, s.lastID, s.head = nil, 0, Hash{}
			clear(s.marks)
			s.add(7)
		}, "1-5 1-7"},
		"an older copy": {func(s *fakeStore) {
			s.events, s.lastID, s.head = s.events[:3], 3, s.events[2].Hash
			s.marks["audit-file"] = FormatMark(2, s.events[1].Hash)
			s.add(4)
		}, "1-5 3-7"},
		"its end cut off": {func(s *fakeStore) {
			s.events, s.head = s.events[:3], s.events[2].Hash
			s.add(1)
		}, "1-5 1-3 6"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, path := newFakeStore(), filepath.Join(t.TempDir(), "audit.jsonl")
				s.add(5)
				exporting(t, s, path).stop()
				s.detail = "another"
				test.change(s)
				e := exporting(t, s, path)
				pass(3)
				has(t, path, test.want)
				if e.logs.Len() == 0 || e.logs.Len() > 2 || !strings.Contains(e.logs.All()[0].Message, "restored, replaced or tampered") {
					t.Errorf("logged %v", e.logs.All())
				}
				e.stop()
			})
		})
	}
}

// That the store is another one is said once, however often the file is opened again.
func TestExportOfAnEmptyStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, path := newFakeStore(), filepath.Join(t.TempDir(), "audit.jsonl")
		s.add(5)
		exporting(t, s, path).stop()
		text, err := os.ReadFile(path)
		must(t, err)
		e := exporting(t, newFakeStore(), path)
		must(t, errors.Join(os.Rename(path, path+".1"), os.WriteFile(path, text, 0o600)))
		pass(1)
		e.logged("restored, replaced or tampered")
		e.stop()
		has(t, path, "1-5")
	})
}

// A store that hangs holds up the end for five seconds.
func TestExportEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore()
		e := exporting(t, s, filepath.Join(t.TempDir(), "audit.jsonl"))
		s.asked = func(ctx context.Context) { <-ctx.Done() }
		began := time.Now()
		e.stop()
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("took %v, want 5s", took)
		}
		e.logged("context deadline exceeded")
	})
}

// Who purges must know what isn't written, and who watches when all was.
func TestUnexported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, path := newFakeStore(), filepath.Join(t.TempDir(), "audit.jsonl")
		unexported := func(want int64) {
			t.Helper()
			e, ok, err := Unexported(t.Context(), s)
			if err != nil || e.ID != want || ok != (want > 0) {
				t.Errorf("event %d, %v, %v; want %d", e.ID, ok, err, want)
			}
		}
		unexported(0)
		s.add(3)
		unexported(1)

		must(t, os.Mkdir(path, 0o700)) // nothing can be written there
		x := &Exporter{Path: path, Source: s, Log: zap.NewNop()}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- x.Run(ctx) }()
		pass(3)
		unexported(1)
		if at := x.Passed(); !at.IsZero() {
			t.Errorf("all was written at %v", at)
		}
		must(t, os.Remove(path))
		pass(1)
		unexported(0)
		if at := x.Passed(); !at.Equal(time.Now()) {
			t.Errorf("all was written at %v, want %v", at, time.Now())
		}
		cancel()
		must(t, <-done)
		s.add(1)
		unexported(4)
		s.marks[fileMark] = "x"
		if _, ok, err := Unexported(t.Context(), s); ok || err == nil {
			t.Errorf("an unreadable mark: %v, %v", ok, err)
		}
	})
}

package certs_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"

	"imapwarden/certs"
	"imapwarden/store/memory"
)

// A testKey is a Sealer that can be rotated: what it seals says by which key, and for which name.
type testKey struct{ current byte }

func (k *testKey) Seal(name string, plaintext []byte) []byte {
	sealed := append([]byte{k.current}, name...)
	sealed = append(sealed, 0)
	for _, b := range plaintext {
		sealed = append(sealed, b^0x55)
	}
	return sealed
}

func (k *testKey) Open(name string, sealed []byte) ([]byte, error) {
	label, text, ok := bytes.Cut(sealed[1:], []byte{0})
	if !ok || string(label) != name || sealed[0] > k.current {
		return nil, errors.New("it was changed, or made for another name")
	}
	plaintext := make([]byte, len(text))
	for i, b := range text {
		plaintext[i] = b ^ 0x55
	}
	return plaintext, nil
}

func (k *testKey) IsCurrent(sealed []byte) bool { return sealed[0] == k.current }

func newStorage(records certs.Records) *certs.Storage {
	return certs.NewStorage(records, &testKey{current: 1}, time.Now)
}

func storeFiles(t *testing.T, s *certs.Storage, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := s.Store(t.Context(), name, []byte("the value of "+name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStorageLoadsWhatWasStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := memory.New()
		s := newStorage(records)
		storeFiles(t, s, "a/b.key")
		value, err := s.Load(t.Context(), "a/b.key")
		if err != nil || string(value) != "the value of a/b.key" {
			t.Errorf("got %q, %v", value, err)
		}
		info, err := s.Stat(t.Context(), "a/b.key")
		want := certmagic.KeyInfo{Key: "a/b.key", Modified: time.Now().UTC(), Size: int64(len(value)), IsTerminal: true}
		if err != nil || info != want {
			t.Errorf("got %+v, %v; want %+v", info, err, want)
		}
		if info, err := s.Stat(t.Context(), "a"); err != nil || info != (certmagic.KeyInfo{Key: "a"}) {
			t.Errorf("the folder: got %+v, %v", info, err)
		}
		f, err := records.LoadFile(t.Context(), "a/b.key")
		if err != nil || bytes.Contains(f.Value, []byte("the value")) {
			t.Errorf("the store has %q, %v: it isn't sealed", f.Value, err)
		}
		f.Name = "a/c.key"
		if err := records.SaveFile(t.Context(), f); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(t.Context(), "a/c.key"); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "another name") {
			t.Errorf("a value under another's name: got %v", err)
		}
	})
}

func TestStorageSaysWhatIsNotThere(t *testing.T) {
	s := newStorage(memory.New())
	storeFiles(t, s, "a/b/c")
	for _, name := range []string{"a/b", "a", "a/b/c/d", "x", ""} {
		if _, err := s.Load(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Load %q: got %v, want fs.ErrNotExist", name, err)
		}
	}
	for name, want := range map[string]bool{"a": true, "a/b": true, "a/b/c": true, "a/b/": false, "a/b/c/d": false, "x": false} {
		if got := s.Exists(t.Context(), name); got != want {
			t.Errorf("Exists %q: got %v", name, got)
		}
		if _, err := s.Stat(t.Context(), name); errors.Is(err, fs.ErrNotExist) == want {
			t.Errorf("Stat %q: got %v", name, err)
		}
		if _, err := s.List(t.Context(), name, true); errors.Is(err, fs.ErrNotExist) == want {
			t.Errorf("List %q: got %v", name, err)
		}
	}
	if err := s.Delete(t.Context(), "x"); err != nil {
		t.Errorf("Delete: %v", err)
	}
}

// The reference is certmagic's own storage of files.
func TestStorageListsAsFileStorageDoes(t *testing.T) {
	ours, theirs := newStorage(memory.New()), &certmagic.FileStorage{Path: t.TempDir()}
	names := []string{"top", "a/1.crt", "a/1.key", "a/b/2.crt", "a/b/c/3.crt", "ab/4.crt", "a.b/5.crt"}
	storeFiles(t, ours, names...)
	for _, name := range names {
		if err := theirs.Store(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	compare := func(folders ...string) {
		t.Helper()
		for _, folder := range folders {
			for _, recursive := range []bool{false, true} {
				got, err := ours.List(t.Context(), folder, recursive)
				want, wantErr := theirs.List(t.Context(), folder, recursive)
				slices.Sort(want)
				if !slices.Equal(got, want) || errors.Is(err, fs.ErrNotExist) != errors.Is(wantErr, fs.ErrNotExist) {
					t.Errorf("%q, recursive %v:\ngot  %q, %v\nwant %q, %v", folder, recursive, got, err, want, wantErr)
				}
			}
		}
	}
	folders := []string{"", "a", "a/b", "a/b/c", "ab", "top", "a/1.crt", "x", "a/x"}
	compare(folders...)
	for _, name := range []string{"a/b", "top", "a/1.crt", "x"} {
		if err := errors.Join(ours.Delete(t.Context(), name), theirs.Delete(t.Context(), name)); err != nil {
			t.Fatal(err)
		}
		compare("", "a", "ab")
	}
}

func TestStorageRefuses(t *testing.T) {
	s := newStorage(memory.New())
	for _, name := range []string{"", ".", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", strings.Repeat("a", 1025), "a\xff"} {
		if err := s.Store(t.Context(), name, nil); err == nil {
			t.Errorf("stored under %q", name)
		}
		if err := s.Delete(t.Context(), name); err == nil {
			t.Errorf("deleted %q", name)
		}
	}
	if err := s.Store(t.Context(), strings.Repeat("a", 1024), make([]byte, 1<<20)); err != nil {
		t.Error(err)
	}
	if err := s.Store(t.Context(), "a", make([]byte, 1<<20+1)); err == nil || !strings.Contains(err.Error(), "1048577") {
		t.Errorf("too large: got %v", err)
	}
}

func TestLocksExcludeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := memory.New()
		processes := []*certs.Storage{newStorage(records), newStorage(records), newStorage(records)}
		var wg sync.WaitGroup
		var inside, times atomic.Int64
		for i := range 12 {
			s := processes[i%len(processes)]
			wg.Go(func() {
				if err := s.Lock(t.Context(), "a"); err != nil {
					t.Error(err)
				}
				if inside.Add(1) != 1 {
					t.Error("two are inside")
				}
				time.Sleep(2 * time.Minute) // longer than a lease that isn't prolonged
				times.Add(1)
				inside.Add(-1)
				if err := s.Unlock(t.Context(), "a"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if times.Load() != 12 {
			t.Errorf("%d were inside, want 12", times.Load())
		}
	})
}

func TestLockOfAnotherNameIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStorage(memory.New())
		for _, name := range []string{"a", "b"} {
			if err := s.Lock(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"a", "b"} {
			if err := s.Unlock(t.Context(), name); err != nil {
				t.Error(err)
			}
		}
	})
}

// A process that was killed unlocks nothing.
func TestLockIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := memory.New()
		now := time.Now()
		if won, err := records.LeaseFile(t.Context(), "a", "killed", now, now.Add(30*time.Second)); !won || err != nil {
			t.Fatal(won, err)
		}
		s := newStorage(records)
		if won, err := s.TryLock(t.Context(), "a"); won || err != nil {
			t.Errorf("TryLock: got %v, %v", won, err)
		}
		if err := s.Lock(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(now); waited < 30*time.Second || waited > 31*time.Second {
			t.Errorf("got it after %v", waited)
		}
		if err := s.Unlock(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	})
}

func TestLockWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := memory.New()
		one, two := newStorage(records), newStorage(records)
		held, end := context.WithCancel(t.Context())
		if err := one.Lock(held, "a"); err != nil {
			t.Fatal(err)
		}
		end()
		time.Sleep(time.Hour) // certmagic ends what it locked with, and unlocks later
		for _, s := range []*certs.Storage{one, two} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := s.Lock(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want context.DeadlineExceeded", err)
			}
			if won, err := s.TryLock(t.Context(), "a"); won || err != nil {
				t.Errorf("TryLock: got %v, %v", won, err)
			}
		}
		if err := one.Unlock(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		if err := one.Unlock(t.Context(), "a"); err == nil {
			t.Error("unlocked twice")
		}
		if won, err := two.TryLock(t.Context(), "a"); !won || err != nil { // who gave up keeps nobody away
			t.Errorf("TryLock: got %v, %v", won, err)
		}
		if err := two.Unlock(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	})
}

// brokenLeases fail while they are broken.
type brokenLeases struct {
	certs.Records
	broken atomic.Bool
}

func (r *brokenLeases) LeaseFile(ctx context.Context, name, holder string, now, until time.Time) (bool, error) {
	if r.broken.Load() {
		return false, errBrokenRecords
	}
	return r.Records.LeaseFile(ctx, name, holder, now, until)
}

func (r *brokenLeases) ReleaseFile(ctx context.Context, name, holder string) error {
	if r.broken.Load() {
		return errBrokenRecords
	}
	return r.Records.ReleaseFile(ctx, name, holder)
}

var errBrokenRecords = errors.New("broken")

func TestLockOutlivesAFailureOfItsRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := memory.New()
		records := &brokenLeases{Records: shared}
		one, two := newStorage(records), newStorage(shared)
		if err := one.Lock(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		locked := func(want bool) {
			t.Helper()
			won, err := two.TryLock(t.Context(), "a")
			if won == want || err != nil {
				t.Errorf("TryLock: got %v, %v", won, err)
			}
		}
		records.broken.Store(true)
		time.Sleep(25 * time.Second)
		locked(true)
		records.broken.Store(false)
		time.Sleep(time.Minute)
		locked(true)

		records.broken.Store(true)
		if err := one.Unlock(t.Context(), "a"); !errors.Is(err, errBrokenRecords) {
			t.Errorf("Unlock: got %v", err)
		}
		if err := one.Lock(t.Context(), "a"); !errors.Is(err, errBrokenRecords) {
			t.Errorf("Lock: got %v", err)
		}
		records.broken.Store(false)
		time.Sleep(time.Minute)
		locked(false) // it ran out: nobody prolonged it
		if err := two.Unlock(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	})
}

// A process that was suspended takes nothing away from who took over meanwhile.
func TestLostLockStaysLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := memory.New()
		records := &brokenLeases{Records: shared}
		one, two := newStorage(records), newStorage(shared)
		if err := one.Lock(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		records.broken.Store(true)
		time.Sleep(time.Minute)
		if err := two.Lock(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		records.broken.Store(false)
		time.Sleep(time.Minute)
		if err := one.Unlock(t.Context(), "a"); err != nil {
			t.Error(err)
		}
		if won, err := newStorage(shared).TryLock(t.Context(), "a"); won || err != nil {
			t.Errorf("TryLock: got %v, %v", won, err)
		}
		if err := two.Unlock(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	})
}

func TestReseal(t *testing.T) {
	records, key := memory.New(), &testKey{current: 1}
	s := certs.NewStorage(records, key, time.Now)
	storeFiles(t, s, "a/b", "a/c", "spoiled")
	spoiled := certs.File{Name: "spoiled", Value: []byte{1, 'x', 0}}
	if err := records.SaveFile(t.Context(), spoiled); err != nil {
		t.Fatal(err)
	}
	before, err := records.ListFiles(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	key.current = 2
	for _, want := range []int{2, 0} {
		if n, err := certs.Reseal(t.Context(), records, key); n != want || err != nil {
			t.Errorf("resealed %d, %v; want %d", n, err, want)
		}
	}
	for _, name := range []string{"a/b", "a/c"} {
		f, err := records.LoadFile(t.Context(), name)
		if err != nil || f.Value[0] != 2 {
			t.Errorf("%s is sealed with key %d, %v", name, f.Value[0], err)
		}
		if value, err := s.Load(t.Context(), name); err != nil || string(value) != "the value of "+name {
			t.Errorf("%s: got %q, %v", name, value, err)
		}
	}
	if f, err := records.LoadFile(t.Context(), "spoiled"); err != nil || !bytes.Equal(f.Value, spoiled.Value) {
		t.Errorf("what doesn't open became %q, %v", f.Value, err)
	}
	after, err := records.ListFiles(t.Context(), "")
	if err != nil || !slices.EqualFunc(before, after, func(a, b certs.File) bool {
		return a.Name == b.Name && a.Modified.Equal(b.Modified) && a.Size == b.Size
	}) {
		t.Errorf("the list was %+v and is %+v, %v", before, after, err)
	}
}

// racingFiles change a file just before it is sealed anew.
type racingFiles struct {
	certs.Records
	race func()
}

func (r racingFiles) ResealFile(ctx context.Context, name string, old, sealed []byte) (bool, error) {
	r.race()
	return r.Records.ResealFile(ctx, name, old, sealed)
}

func TestResealReadsAgainAfterALostRace(t *testing.T) {
	for _, test := range []struct {
		name     string
		race     func(t *testing.T, s *certs.Storage, round int)
		resealed int
		fails    bool
		left     string
	}{
		{"renewed by a process that knows the old key", func(t *testing.T, s *certs.Storage, round int) {
			if round == 0 {
				storeFiles(t, s, "a", "a")
				if err := s.Store(t.Context(), "a", []byte("renewed")); err != nil {
					t.Error(err)
				}
			}
		}, 1, false, "renewed"},
		{"deleted", func(t *testing.T, s *certs.Storage, _ int) {
			if err := s.Delete(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		}, 0, false, ""},
		{"again and again", func(t *testing.T, s *certs.Storage, round int) {
			if err := s.Store(t.Context(), "a", []byte{byte(round)}); err != nil {
				t.Error(err)
			}
		}, 0, true, "\x09"},
	} {
		t.Run(test.name, func(t *testing.T) {
			records, round := memory.New(), 0
			stale := newStorage(records)
			storeFiles(t, stale, "a")
			key := &testKey{current: 2}
			n, err := certs.Reseal(t.Context(), racingFiles{records, func() { test.race(t, stale, round); round++ }}, key)
			if n != test.resealed || (err != nil) != test.fails {
				t.Errorf("resealed %d, %v", n, err)
			}
			value, err := certs.NewStorage(records, key, time.Now).Load(t.Context(), "a")
			if string(value) != test.left || errors.Is(err, fs.ErrNotExist) != (test.left == "") {
				t.Errorf("left is %q, %v; want %q", value, err, test.left)
			}
		})
	}
}

package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imapwarden/certs"
)

func file(name string) certs.File {
	return certs.File{Name: name, Value: []byte{0, 0xff, '\'', 1}, Modified: day, Size: 3}
}

func saveFiles(t *testing.T, s Store, files ...certs.File) {
	t.Helper()
	for _, f := range files {
		must(t, s.SaveFile(t.Context(), f))
	}
}

func loadFile(t *testing.T, s Store, name string) certs.File {
	t.Helper()
	f, err := s.LoadFile(t.Context(), name)
	must(t, err)
	return f
}

// fileNames are those that ListFiles returns.
func fileNames(t *testing.T, s Store, name string) string {
	t.Helper()
	files, err := s.ListFiles(t.Context(), name)
	must(t, err)
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	return strings.Join(names, " ")
}

// leased says whether the holder got the lease.
func leased(t *testing.T, s Store, name, holder string, now, until time.Time) bool {
	t.Helper()
	won, err := s.LeaseFile(t.Context(), name, holder, now, until)
	must(t, err)
	return won
}

func fileRoundTrip(t *testing.T, s Store) {
	if _, err := s.LoadFile(t.Context(), "a"); !errors.Is(err, certs.ErrNoFile) {
		t.Errorf("no file: got %v, want certs.ErrNoFile", err)
	}
	odd := certs.File{Name: `o'hare%_\ü"/*.key`, Value: []byte{}, Modified: time.Time{}}
	late := file("late")
	late.Modified = day.Add(999).In(time.FixedZone("", 3600))
	large := file("large")
	large.Value, large.Size = []byte(strings.Repeat("\x00\xff", 1<<19)), 1<<40
	saveFiles(t, s, odd, late, large)
	late.Modified = day
	for _, want := range []certs.File{odd, late, large} {
		got := loadFile(t, s, want.Name)
		if !bytes.Equal(got.Value, want.Value) {
			t.Errorf("%s: its %d octets came back as %d others", want.Name, len(want.Value), len(got.Value))
		}
		got.Value, want.Value = nil, nil // a megabyte is too much for a diff
		same(t, "the file", got, want)
	}

	value := []byte("mine")
	saveFiles(t, s, certs.File{Name: "a", Value: value})
	value[0] = 'x'
	loadFile(t, s, "a").Value[1] = 'x'
	same(t, "a file whose value its callers changed", string(loadFile(t, s, "a").Value), "mine")
	list, err := s.ListFiles(t.Context(), "late")
	must(t, err)
	late.Value = nil
	same(t, "the list", list, []certs.File{late})
}

func saveReplaces(t *testing.T, s Store) {
	again := certs.File{Name: "a/b", Value: []byte("again"), Modified: day.Add(-time.Hour), Size: 5}
	saveFiles(t, s, file("a/b"), file("A/b"), again)
	same(t, "the file", loadFile(t, s, "a/b"), again)
	same(t, "the other file", loadFile(t, s, "A/b"), file("A/b"))
}

func filesBelow(t *testing.T, s Store) {
	same(t, "the files of an empty store", fileNames(t, s, ""), "")
	must(t, s.DeleteFiles(t.Context(), "a"))
	must(t, s.DeleteFiles(t.Context(), ""))
	saveFiles(t, s, file("b"), file("a/d"), file("a0"), file("a/b/c"), file("a"), file("a%"), file("a/b"), file("a-b"), file("A/b"), file("a/bb"), file("a.b"), file("a/ü"), file("ü/a"))
	for name, want := range map[string]string{
		"":      "A/b a a% a-b a.b a/b a/b/c a/bb a/d a/ü a0 b ü/a",
		"a":     "a a/b a/b/c a/bb a/d a/ü",
		"a/b":   "a/b a/b/c",
		"a/b/c": "a/b/c",
		"A":     "A/b",
		"ü":     "ü/a",
		"a%":    "a%",
		"%":     "",
		"a_b":   "",
		"a/":    "",
		"c":     "",
	} {
		same(t, fmt.Sprintf("the files at %q", name), fileNames(t, s, name), want)
	}
	must(t, s.DeleteFiles(t.Context(), "%"))
	must(t, s.DeleteFiles(t.Context(), "a/b"))
	same(t, "the files that are left", fileNames(t, s, ""), "A/b a a% a-b a.b a/bb a/d a/ü a0 b ü/a")
	must(t, s.DeleteFiles(t.Context(), "a"))
	same(t, "the files that are left", fileNames(t, s, ""), "A/b a% a-b a.b a0 b ü/a")
	must(t, s.DeleteFiles(t.Context(), ""))
	same(t, "the files that are left", fileNames(t, s, ""), "")
}

func resealFile(t *testing.T, s Store) {
	saveFiles(t, s, file("a"), file("b"))
	reseal := func(name string, old, sealed []byte) bool {
		t.Helper()
		won, err := s.ResealFile(t.Context(), name, old, sealed)
		must(t, err)
		return won
	}
	old, sealed := file("a").Value, []byte("sealed anew")
	same(t, "won with what it isn't", reseal("a", []byte("other"), sealed), false)
	same(t, "won without a file", reseal("c", old, sealed), false)
	same(t, "won with what it is", reseal("a", old, sealed), true)
	same(t, "won with what it was", reseal("a", old, sealed), false)
	want := file("a")
	want.Value = sealed
	same(t, "the file", loadFile(t, s, "a"), want)
	same(t, "the other file", loadFile(t, s, "b"), file("b"))
	same(t, "the files", fileNames(t, s, ""), "a b")
}

func leases(t *testing.T, s Store) {
	soon, later := day.Add(time.Minute), day.Add(time.Hour)
	same(t, "the first wins", leased(t, s, "a", "one", day, soon), true)
	same(t, "another wins meanwhile", leased(t, s, "a", "two", day, later), false)
	same(t, "another wins just before it ends", leased(t, s, "a", "two", soon.Add(-time.Microsecond), later), false)
	same(t, "another name is taken", leased(t, s, "a/b", "two", day, soon), true)
	same(t, "its holder prolongs it", leased(t, s, "a", "one", day.Add(time.Second), later), true)
	same(t, "another wins when it would have ended", leased(t, s, "a", "two", soon, later), false)
	same(t, "another takes it over as it ends", leased(t, s, "a", "two", later, later.Add(time.Hour)), true)
	same(t, "who lost it prolongs it", leased(t, s, "a", "one", later, later.Add(time.Hour)), false)

	must(t, s.ReleaseFile(t.Context(), "a", "one"))
	same(t, "won after somebody else released it", leased(t, s, "a", "one", later, later.Add(time.Hour)), false)
	must(t, s.ReleaseFile(t.Context(), "a", "two"))
	must(t, s.ReleaseFile(t.Context(), "a", "two"))
	same(t, "won after its holder released it", leased(t, s, "a", "one", later, later.Add(time.Hour)), true)
	same(t, "released with the name above", leased(t, s, "a/b", "one", day, soon), false)
	same(t, "the files that leases made", fileNames(t, s, ""), "")
}

// leaseRace: nobody wins what another holds, whether a lease was there or had just ended.
func leaseRace(t *testing.T, s Store) {
	const racers, rounds = 16, 5
	for round := range rounds {
		now := day.Add(time.Duration(round) * time.Minute)
		var wg sync.WaitGroup
		var won atomic.Int64
		start := make(chan struct{})
		for i := range racers {
			wg.Go(func() {
				<-start
				holder := fmt.Sprint(round, " ", i)
				ok, err := s.LeaseFile(t.Context(), "a", holder, now, now.Add(time.Minute))
				if err != nil {
					t.Error(err)
				}
				if ok {
					won.Add(1)
				}
				if err := s.ReleaseFile(t.Context(), "a", "somebody else"); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		same(t, "the number of winners", won.Load(), 1)
	}
}

func cancelledFiles(t *testing.T, s Store) {
	saveFiles(t, s, file("a"))
	leased(t, s, "a", "one", day, day.Add(time.Hour))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for method, call := range map[string]func() error{
		"SaveFile":    func() error { return s.SaveFile(ctx, file("b")) },
		"LoadFile":    func() error { _, err := s.LoadFile(ctx, "a"); return err },
		"ResealFile":  func() error { _, err := s.ResealFile(ctx, "a", file("a").Value, []byte("x")); return err },
		"DeleteFiles": func() error { return s.DeleteFiles(ctx, "a") },
		"ListFiles":   func() error { _, err := s.ListFiles(ctx, ""); return err },
		"LeaseFile":   func() error { _, err := s.LeaseFile(ctx, "b", "one", day, day.Add(time.Hour)); return err },
		"ReleaseFile": func() error { return s.ReleaseFile(ctx, "a", "one") },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", method, err)
		}
	}
	same(t, "the files", fileNames(t, s, ""), "a")
	same(t, "the file", loadFile(t, s, "a"), file("a"))
	same(t, "the lease that wasn't released", leased(t, s, "a", "two", day, day.Add(time.Hour)), false)
	same(t, "the lease that wasn't given", leased(t, s, "b", "two", day, day.Add(time.Hour)), true)
}

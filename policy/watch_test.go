package policy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// oneWord is the text of a file, which mustn't have a space in it.
func oneWord(r io.Reader, size int64) (string, error) {
	data, err := io.ReadAll(r)
	if err == nil && int64(len(data)) != size {
		err = fmt.Errorf("%d octets, and not %d", len(data), size)
	}
	if err == nil && strings.Contains(string(data), " ") {
		err = fmt.Errorf("more than one word")
	}
	return string(data), err
}

// A tale is what Watch has told.
type tale struct {
	mu   sync.Mutex
	told []string
}

func (l *tale) add(path string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		err = errors.New("new")
	}
	l.told = append(l.told, strings.TrimPrefix(err.Error(), "policy: reading "+path+": "))
}

// take returns what was told since the last time.
func (l *tale) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	told := strings.Join(l.told, ", ")
	l.told = nil
	return told
}

// watching runs the test with Watch beside it, in a bubble where looks cost no time.
func watching(t *testing.T, f *File[string], test func(told *tale)) {
	ctx, cancel := context.WithCancel(t.Context())
	told := new(tale)
	var watch sync.WaitGroup
	watch.Go(func() { f.Watch(ctx, 0, told.add) })
	test(told)
	cancel()
	watch.Wait()
}

// replace writes a file the way careful programs do: whole, by rename.
func replace(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+".new", text)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "word")
		write(t, path, "one")
		f, err := Open(path, oneWord)
		if err != nil {
			t.Fatal(err)
		}
		watching(t, f, func(told *tale) {
			for _, step := range []struct {
				name string
				do   func()
				told string // "": nothing
				want string
			}{
				{"nothing", func() {}, "", "one"},
				{"written over", func() { write(t, path, "another") }, "new", "another"},
				{"replaced, by one of the same size and time", func() {
					info, err := os.Stat(path)
					if err != nil {
						t.Fatal(err)
					}
					write(t, path+".new", "renamed")
					if err := os.Chtimes(path+".new", info.ModTime(), info.ModTime()); err != nil {
						t.Fatal(err)
					}
					if err := os.Rename(path+".new", path); err != nil {
						t.Fatal(err)
					}
				}, "new", "renamed"},
				{"broken", func() { replace(t, path, "two words") }, "more than one word", "renamed"},
				{"broken in the same way, but changed", func() { replace(t, path, "two more words") }, "more than one word", "renamed"},
				{"gone", func() { remove(t, path) }, "no such file or directory", "renamed"},
				{"a folder", func() {
					if err := os.Mkdir(path, 0o700); err != nil {
						t.Fatal(err)
					}
				}, "must be a regular file", "renamed"},
				{"a pipe", func() {
					remove(t, path)
					if err := syscall.Mkfifo(path, 0o600); err != nil {
						t.Fatal(err)
					}
				}, "must be a regular file", "renamed"},
				{"back", func() { remove(t, path); write(t, path, "back") }, "new", "back"},
				{"a link to itself", func() {
					remove(t, path)
					if err := os.Symlink(path, path); err != nil {
						t.Fatal(err)
					}
				}, "too many levels of symbolic links", "back"},
				{"a link", func() {
					remove(t, path)
					write(t, path+".target", "linked")
					if err := os.Symlink(path+".target", path); err != nil {
						t.Fatal(err)
					}
				}, "new", "linked"},
			} {
				step.do()
				time.Sleep(time.Hour) // many looks
				synctest.Wait()
				if got, ok := f.Value(); got != step.want || !ok {
					t.Errorf("%s: the value is %q, %v", step.name, got, ok)
				}
				if got := told.take(); got != step.told {
					t.Errorf("%s: told %q, want %q", step.name, got, step.told)
				}
			}
		})
	})
}

// The system may let us read a file again without a trace on it.
func TestWatchTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "word")
		write(t, path, "one")
		var denied atomic.Bool
		denied.Store(true)
		f, err := Open(path, func(r io.Reader, size int64) (string, error) {
			if denied.Load() {
				return "", &fs.PathError{Op: "read", Path: path, Err: syscall.EIO}
			}
			return oneWord(r, size)
		})
		if f == nil || !errors.Is(err, syscall.EIO) {
			t.Fatalf("got %v", err)
		}
		if _, ok := f.Value(); ok {
			t.Error("a value from nowhere")
		}
		watching(t, f, func(told *tale) {
			time.Sleep(time.Hour)
			synctest.Wait()
			if got := told.take(); got != "" {
				t.Errorf("told what Open had said: %q", got)
			}
			denied.Store(false)
			time.Sleep(lookEvery)
			synctest.Wait()
			if got, _ := f.Value(); got != "one" || told.take() != "new" {
				t.Errorf("value %q", got)
			}
		})
	})
}

func TestOpenAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "word")
		f, err := Open(path, oneWord)
		if want := "policy: reading " + path + ": no such file or directory"; !errors.Is(err, fs.ErrNotExist) || err.Error() != want {
			t.Fatalf("got %v, want %s", err, want)
		}
		watching(t, f, func(told *tale) {
			time.Sleep(time.Hour)
			synctest.Wait()
			if _, ok := f.Value(); ok || told.take() != "" {
				t.Errorf("value %v, or told again", ok)
			}
			write(t, path, "here")
			time.Sleep(lookEvery + time.Second)
			synctest.Wait()
			if got, ok := f.Value(); got != "here" || !ok {
				t.Errorf("value %q, %v", got, ok)
			}
		})
	})
}

// Half a list is not the list.
func TestWatchWaitsForTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "word")
		write(t, path, "one")
		f, err := Open(path, oneWord)
		if err != nil {
			t.Fatal(err)
		}
		watching(t, f, func(*tale) {
			time.Sleep(lookEvery - time.Second/2)
			for n := 1; n <= 20; n++ {
				write(t, path, strings.Repeat("x", 10*n))
				time.Sleep(time.Second / 2)
				if got, _ := f.Value(); got != "one" {
					t.Fatalf("while it is written: %q", got)
				}
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if got, _ := f.Value(); len(got) != 200 {
				t.Errorf("in the end: %q", got)
			}
		})
	})
}

// The files of all rules are read again, those of several rules once.
func TestRulesWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		paths := map[string]string{}
		for name, text := range map[string]string{"vpn": "203.0.113.0/24", "country": countries(t), "asn": owners(t)} {
			paths[name] = filepath.Join(dir, name)
			write(t, paths[name], text)
		}
		vpn, err1 := OpenNetworks(paths["vpn"])
		countryFile, err2 := OpenCountries(paths["country"])
		ownerFile, err3 := OpenOwners(paths["asn"])
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		geo := &Geo{Countries: countryFile, Owners: ownerFile}
		rules := Rules{
			{Name: "vpn", NetworkFiles: []*File[*NetworkSet]{vpn}},
			{Name: "vpn again", NetworkFiles: []*File[*NetworkSet]{vpn}, Geo: geo, Countries: []string{"DE"}},
			{Name: "geo", Geo: geo, Owners: []uint32{64496}},
		}
		in := Subject{Addr: netip.MustParseAddr("10.0.0.1")}
		if got := rules.Match(in).Rule; got != "" {
			t.Fatalf("matched %q before", got)
		}

		ctx, cancel := context.WithCancel(t.Context())
		told := new(tale)
		var watch sync.WaitGroup
		watch.Go(func() { rules.Watch(ctx, told.add) })
		time.Sleep(time.Minute)
		write(t, paths["vpn"], "10.0.0.0/8")
		write(t, paths["country"], "nonsense")
		write(t, paths["asn"], "nonsense")
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := told.take(); strings.Count(got, "new") != 1 || strings.Count(got, "MaxMind's format") != 2 {
			t.Errorf("told %q", got)
		}
		if got := rules.Match(in).Rule; got != "vpn" {
			t.Errorf("matched %q", got)
		}
		if got := rules.Match(Subject{Addr: netip.MustParseAddr("192.0.2.1")}).Rule; got != "geo" {
			t.Errorf("without the last good file: matched %q", got)
		}
		cancel()
		watch.Wait()
	})
}

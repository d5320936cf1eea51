package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// newPair makes a pair of PEM texts for one host.
func newPair(t *testing.T, host string) (cert, key []byte) {
	t.Helper()
	cert, key, err := SelfSigned([]string{host}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace writes a file the way careful programs do: whole, by rename.
func replace(t *testing.T, file string, data []byte) {
	t.Helper()
	write(t, file+".new", data)
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// pairIn writes a new pair for host into the folder and names its files.
func pairIn(t *testing.T, dir, host string) Pair {
	t.Helper()
	p := Pair{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	cert, key := newPair(t, host)
	write(t, p.Cert, cert)
	write(t, p.Key, key)
	return p
}

func load(t *testing.T, pairs ...Pair) (*Files, *observer.ObservedLogs) {
	t.Helper()
	f, err := Load(pairs)
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zapcore.InfoLevel)
	f.Log = zap.New(core)
	return f, logs
}

// served is the first name of the default certificate.
func served(f *Files) string { return f.current.Load().certificates[0].Leaf.DNSNames[0] }

func TestLoadSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	good := pairIn(t, dir, "a.test")
	cert, key := newPair(t, "b.test")
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		write(t, path, data)
		return path
	}
	chain := append(append([]byte{}, cert...), cert...)
	damaged := bytes.Replace(cert, []byte("\nMII"), []byte("\nAAA"), 1)
	encrypted := []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n")
	tests := []struct {
		name string
		pair Pair
		want []string
	}{
		{"no certificate file", Pair{filepath.Join(dir, "none.pem"), good.Key}, []string{"none.pem", "no such file", "check the path"}},
		{"no key file", Pair{good.Cert, filepath.Join(dir, "none.key")}, []string{"none.key", "no such file"}},
		{"neither", Pair{filepath.Join(dir, "none.pem"), filepath.Join(dir, "none.key")}, []string{"none.pem", "none.key"}},
		{"no path", Pair{Cert: good.Cert}, []string{"names no key file"}},
		{"a folder", Pair{dir, good.Key}, []string{dir, "regular file"}},
		{"empty", Pair{file("empty.pem", nil), good.Key}, []string{"empty.pem", "no certificate in it"}},
		{"truncated certificate", Pair{file("short.pem", cert[:len(cert)/2]), good.Key}, []string{"short.pem", "cut off"}},
		{"truncated chain", Pair{file("chain.pem", chain[:len(chain)-40]), file("b.key", key)}, []string{"chain.pem", "block 2 of 2", "cut off"}},
		{"damaged", Pair{file("damaged.pem", damaged), good.Key}, []string{"damaged.pem", "number 1", "damaged"}},
		{"truncated key", Pair{good.Cert, file("short.key", key[:len(key)/2])}, []string{"short.key", "cut off"}},
		{"certificate for key", Pair{good.Cert, good.Cert}, []string{good.Cert, "no private key"}},
		{"key for certificate", Pair{good.Key, good.Key}, []string{good.Key, "no certificate in it"}},
		{"encrypted key", Pair{good.Cert, file("enc.key", encrypted)}, []string{"enc.key", "passphrase", "openssl pkey"}},
		{"another's key", Pair{good.Cert, file("other.key", key)}, []string{good.Cert, "other.key", "doesn't belong"}},
		{"too large", Pair{file("large.pem", make([]byte, maxFile+1)), good.Key}, []string{"large.pem", "larger than 1 MiB"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load([]Pair{good, tt.pair})
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range append(tt.want, "certs: ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q doesn't say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), string(key[60:90])) {
				t.Error("the error shows a part of the key")
			}
		})
	}
	if _, err := Load(nil); err == nil {
		t.Error("no pair: no error")
	}
}

func TestReload(t *testing.T) {
	dirA, dirB := t.TempDir(), t.TempDir()
	a, b := pairIn(t, dirA, "old.test"), pairIn(t, dirB, "b.test")
	f, logs := load(t, a, b)

	if err := f.Reload(); err != nil || logs.Len() != 0 {
		t.Errorf("nothing changed: %v, %v", err, logs.All())
	}
	pairIn(t, dirA, "new.test")
	good, err := os.ReadFile(b.Cert)
	if err != nil {
		t.Fatal(err)
	}
	write(t, b.Cert, good[:100])
	if err := f.Reload(); err == nil || !strings.Contains(err.Error(), b.Cert) {
		t.Errorf("one of two is bad: %v", err)
	}
	if served(f) != "old.test" {
		t.Error("half of a bad set is served")
	}
	write(t, b.Cert, good)
	if err := f.Reload(); err != nil || served(f) != "new.test" {
		t.Errorf("all good again: %v, %s", err, served(f))
	}
	if got := logs.FilterMessage("certificates reloaded").Len(); got != 1 {
		t.Errorf("%d reloads logged, want 1", got)
	}
}

// watching runs the test with Watch beside it, in a bubble where looks cost no time.
func watching(t *testing.T, f *Files, test func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { f.Watch(ctx, 0) })
	test()
	cancel()
	wg.Wait()
}

// twoLooks is when a change at any time must have been seen and have settled.
const twoLooks = defaultEvery + time.Second

func TestWatchRename(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pairIn(t, t.TempDir(), "old.test")
		f, logs := load(t, p)
		watching(t, f, func() {
			time.Sleep(time.Hour)
			if logs.Len() != 0 {
				t.Errorf("logged without any change: %v", logs.All())
			}
			cert, key := newPair(t, "new.test")
			replace(t, p.Cert, cert)
			replace(t, p.Key, key)
			time.Sleep(twoLooks)
			synctest.Wait()
			if served(f) != "new.test" {
				t.Errorf("%s is served", served(f))
			}
		})
	})
}

// certbot moves one link for each file, Kubernetes one for the folder of all.
func TestWatchSymlinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for _, host := range []string{"old.test", "new.test"} {
			if err := os.Mkdir(filepath.Join(dir, host), 0o700); err != nil {
				t.Fatal(err)
			}
			made := pairIn(t, filepath.Join(dir, host), host)
			for _, file := range []string{made.Cert, made.Key} { // not even the times differ
				if err := os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
					t.Fatal(err)
				}
			}
		}
		link := func(target string) {
			if err := os.Symlink(target, filepath.Join(dir, "next")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "data")); err != nil {
				t.Fatal(err)
			}
		}
		link("old.test")
		f, _ := load(t, Pair{filepath.Join(dir, "data", "cert.pem"), filepath.Join(dir, "data", "key.pem")})
		watching(t, f, func() {
			link("new.test")
			time.Sleep(twoLooks)
			synctest.Wait()
			if served(f) != "new.test" {
				t.Errorf("%s is served", served(f))
			}
		})
	})
}

func TestWatchBadFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pairIn(t, t.TempDir(), "old.test")
		f, logs := load(t, p)
		cert, key := newPair(t, "new.test")
		errors := func() []observer.LoggedEntry { return logs.FilterLevelExact(zapcore.ErrorLevel).All() }
		watching(t, f, func() {
			steps := []struct {
				name string
				do   func()
				want int // errors so far
			}{
				{"truncated", func() { write(t, p.Cert, cert[:200]) }, 1},
				{"certificate first", func() { replace(t, p.Cert, cert) }, 2},
				{"gone", func() { os.Remove(p.Key) }, 3},
			}
			for _, step := range steps {
				step.do()
				time.Sleep(time.Hour)
				synctest.Wait()
				if served(f) != "old.test" {
					t.Fatalf("%s: %s is served", step.name, served(f))
				}
				all := errors()
				if len(all) != step.want {
					t.Fatalf("%s: %d errors logged, want one each: %v", step.name, len(all), all)
				}
				if text := all[len(all)-1].ContextMap()["error"].(string); !strings.Contains(text, filepath.Dir(p.Key)) {
					t.Errorf("%s: the error names no file: %s", step.name, text)
				}
			}
			write(t, p.Key, key)
			time.Sleep(twoLooks)
			synctest.Wait()
			if served(f) != "new.test" || len(errors()) != len(steps) {
				t.Errorf("then the key: %s is served, %v", served(f), errors())
			}
		})
	})
}

// A file that is still growing is left alone until it stops, even where each state of
// it could be read.
func TestWatchWaitsUntilFilesSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pairIn(t, t.TempDir(), "old.test")
		f, logs := load(t, p)
		cert, key := newPair(t, "new.test")
		watching(t, f, func() {
			time.Sleep(defaultEvery - 100*time.Millisecond)
			write(t, p.Cert, cert)
			time.Sleep(time.Second) // the look at the certificate was in this second
			write(t, p.Key, key)
			time.Sleep(twoLooks)
			synctest.Wait()
			if served(f) != "new.test" {
				t.Errorf("%s is served", served(f))
			}
			if n := logs.FilterLevelExact(zapcore.ErrorLevel).Len(); n != 0 {
				t.Errorf("%d errors about files in motion", n)
			}
		})
	})
}

func TestWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pairIn(t, t.TempDir(), "a.test") // good for an hour
		if err := os.Chmod(p.Key, 0o644); err != nil {
			t.Fatal(err)
		}
		f, logs := load(t, p)
		if w := f.Warnings(); len(w) != 1 || !strings.Contains(w[0], p.Key) || !strings.Contains(w[0], "chmod") {
			t.Errorf("a key that everybody can read: %q", w)
		}
		watching(t, f, func() {
			time.Sleep(24 * time.Hour)
			if w := f.Warnings(); len(w) != 2 || !strings.Contains(w[0], p.Cert) || !strings.Contains(w[0], "expired") {
				t.Errorf("a day later: %q", w)
			}
			if n := logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 2 {
				t.Errorf("%d warnings logged, want each once", n)
			}
		})
		if w := f.current.Load().warnings(time.Now().Add(-48 * time.Hour)); !strings.Contains(w[0], "not valid before") {
			t.Errorf("before its time: %q", w)
		}
	})
}

func TestHandshakesDuringReload(t *testing.T) {
	dir := t.TempDir()
	p := pairIn(t, dir, "a.test")
	f, _ := load(t, p)
	config := ServerConfig(Chooser{Files: f}, 0)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				if _, err := handshake(config, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		pairIn(t, dir, "a.test")
		if err := f.Reload(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

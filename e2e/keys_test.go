package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A rotation is what key rotate says.
type rotation struct {
	Key           string
	Resealed      int
	Kept, Dropped []string
}

func (w *warden) rotate() (r rotation) {
	w.t.Helper()
	if err := json.Unmarshal(w.command("key", "rotate", "--json"), &r); err != nil {
		w.t.Fatal(err)
	}
	return r
}

// Nobody who signs in or is signed in notices that the keys are rotated.
func TestRotateWhilePeopleSignIn(t *testing.T) {
	t.Parallel()
	// As many sessions as there may be, for each counts until its upstream has closed, too.
	many := settings{more: "[limits]\nconnections_account = 1000\nconnections_account_address = 1000"}
	w := startWarden(t, many)
	coded, granted, device := w.enrolled(anyPassword()), w.enrolled(anyPassword()), w.upstream.newAccount(t, anyPassword())
	app := w.appPassword(device, device.password)
	live := []*conn{w.accepts(granted, home, granted.withCode(t)), w.accepts(device, home, app.Password)}

	var people sync.WaitGroup
	stop := make(chan struct{})
	// Each signs in again and again, until all is rotated or secrets are used up.
	signIn := func(a *account, secrets func() (secret string, more bool)) {
		people.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				secret, more := secrets()
				if !more {
					return
				}
				if answer, err := tryLogin(home, w.implicit, a.name, secret); err != nil || !strings.HasPrefix(answer, "OK") {
					t.Errorf("a login while keys are rotated: %s, %v", answer, err)
				}
			}
		})
	}
	always := func(secret string) func() (string, bool) {
		return func() (string, bool) { return secret, true }
	}
	code := coded.withCode(t)
	codes := slices.Clone(coded.recovery[:6])
	coded.recovery = coded.recovery[6:]
	signIn(device, always(app.Password))
	signIn(granted, always(granted.password))
	signIn(coded, func() (string, bool) {
		if len(codes) == 0 {
			return code, true
		}
		next := coded.password + codes[0]
		codes = codes[1:]
		return next, true
	})
	keys := map[string]bool{}
	for range 4 {
		r := w.rotate()
		keys[r.Key] = true
		if r.Resealed != 2 {
			t.Errorf("%d authenticators sealed anew, want 2", r.Resealed)
		}
	}
	close(stop)
	people.Wait()
	w.accepts(coded, home, code).Close() // the rotations may be over before its turn
	if len(keys) != 4 {
		t.Errorf("4 rotations made %d keys", len(keys))
	}
	for i, c := range live {
		if r := c.do("NOOP"); !r.is("OK") {
			t.Errorf("session %d: %s", i, r.line)
		}
		c.Close()
	}

	w.restart(settings{})
	w.accepts(device, elsewhere, app.Password).holdsMailOf(device)
	w.accepts(granted, home, granted.password)
	w.rejects(coded, elsewhere, code, "replayed-code")
	w.accepts(coded, elsewhere, coded.withRecovery(t))
	w.accepts(granted, elsewhere, granted.withCode(t))
	// A server that is away is no reason not to rotate.
	w.stop()
	w.rotate()
	w.start()
	w.accepts(granted, "127.0.10.1", granted.withRecovery(t))
	w.accepts(device, home, app.Password)
}

// A key file that is lost or another's must not be noticed by users first, nor replaced by a
// new one: imapwarden doesn't start, and nothing is changed by that.
func TestLostKeyFile(t *testing.T) {
	t.Parallel()
	w, other := startWarden(t, settings{}), startWarden(t, settings{})
	other.stop()
	a := w.enrolled(anyPassword())
	app := w.appPassword(a, a.password)
	w.accepts(a, home, a.withCode(t))
	w.stop()
	file, saved := filepath.Join(w.dir, "master.key"), filepath.Join(w.dir, "master.saved")
	if err := os.Rename(file, saved); err != nil {
		t.Fatal(err)
	}

	w.startFails(file+" is missing", "restore the file from its backup")
	w.refuses([]string{"account", "list"}, file+" is missing")
	w.refuses([]string{"key", "rotate"}, file+" is missing")
	if _, err := os.Stat(file); err == nil {
		t.Error("a new key file was made")
	}
	write(t, file, mustRead(t, filepath.Join(other.dir, "master.key")))
	w.startFails(file+" doesn't hold key", "restore the newest backup of the file")
	w.refuses([]string{"key", "rotate"}, file+" doesn't hold key")
	write(t, file, "")
	w.startFails(file)

	if err := os.Rename(saved, file); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.accepts(a, home, a.password)
	w.accepts(a, elsewhere, app.Password).holdsMailOf(a)
	w.accepts(a, elsewhere, a.withCode(t))
	w.command("audit", "verify")
}

// startFails starts the server, which must end with status 1 and say all of this in its log.
func (w *warden) startFails(says ...string) {
	w.t.Helper()
	before := len(mustRead(w.t, w.log()))
	p, err := startProcess(filepath.Join(w.dir, "stdout.log"), w.log(), shared.program, "serve", "--config", w.config())
	if err != nil {
		w.t.Fatal(err)
	}
	if status, err := p.wait(); err != nil || status != 1 {
		w.t.Errorf("serve ended with status %d, %v, want 1", status, err)
	}
	for _, text := range says {
		if said := mustRead(w.t, w.log())[before:]; !strings.Contains(said, text) {
			w.t.Errorf("serve doesn't say %q:\n%s", text, said)
		}
	}
}

// Package e2e runs the real imapwarden in front of a real Dovecot and comes in
// through the front door: with bytes on a socket where the wire matters, with
// go-imap's client where it doesn't, and with the mail programs that people use.
//
// TestMain builds the program once, with the race detector, and starts one Dovecot
// that all tests share; every test starts an imapwarden of its own, with its own
// ports, store and accounts, so that no limit or grant of one reaches another.
// All of it lives in one folder under /tmp and ends with the tests.
//
// The programs that this needs are Debian packages; ./test at the top of the
// tree installs them.
package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shared is what all tests use; TestMain sets it before any of them runs.
var shared struct {
	dir      string // short, for a Unix socket's path ends at 108 octets
	program  string // imapwarden, as built
	clients  *authority
	internal *authority // the upstream's, unknown to clients
	stranger *authority // believed by nobody
	dovecot  *dovecot
}

func TestMain(m *testing.M) {
	status, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M) (status int, err error) {
	if err := findPrograms("dovecot", "mbsync", "fetchmail", "curl", "neomutt", "openssl", "python3", "script"); err != nil {
		return 1, err
	}
	if shared.dir, err = os.MkdirTemp("/tmp", "iw"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(shared.dir)
	// Dovecot's own users have to pass through.
	if err := os.Chmod(shared.dir, 0o755); err != nil {
		return 1, err
	}
	for _, a := range []struct {
		name string
		ca   **authority
	}{{"clients", &shared.clients}, {"internal", &shared.internal}, {"stranger", &shared.stranger}} {
		if *a.ca, err = newAuthority(shared.dir, a.name); err != nil {
			return 1, err
		}
	}
	if shared.program, err = build(shared.dir); err != nil {
		return 1, err
	}
	owner, remove, err := newMailUser()
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	if shared.dovecot, err = newDovecot(filepath.Join(shared.dir, "d"), owner); err != nil {
		return 1, err
	}
	if err := shared.dovecot.start(); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, shared.dovecot.stop()) }()
	// The tests mostly wait, for Dovecot and for refusals: more of them at the
	// same time than there are cores. The command line can still say otherwise.
	if err := flag.Set("test.parallel", "6"); err != nil {
		return 1, err
	}
	// The race detector sleeps a second before every exit, for races that only
	// show then; every command would.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0"); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func findPrograms(names ...string) error {
	var missing []string
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if missing != nil {
		return fmt.Errorf("not installed: %s; run ./test, which installs them", strings.Join(missing, ", "))
	}
	return nil
}

// build makes the program as it ships, but with the race detector: a race
// reported in its log fails the test that stops it.
func build(dir string) (string, error) {
	program := filepath.Join(dir, "imapwarden")
	out, err := exec.Command("go", "build", "-race", "-buildvcs=false", "-o", program, "imapwarden/cmd/imapwarden").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building imapwarden: %w\n%s", err, out)
	}
	return program, nil
}

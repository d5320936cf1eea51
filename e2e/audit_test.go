package e2e

import (
	"bufio"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	_ "modernc.org/sqlite" // to change the store behind imapwarden's back
)

// someOfEverything does a bit of all that the audit has events for.
func (w *warden) someOfEverything() {
	w.t.Helper()
	a := w.enrolled(anyPassword())
	app := w.appPassword(a, a.password)
	w.rejects(a, home, a.password, "no-code")
	w.rejects(a, home, a.withWrongCode(w.t), "wrong-code")
	w.accepts(a, home, a.withCode(w.t))
	w.accepts(a, home, a.withRecovery(w.t))
	w.accepts(a, home, a.password).do(`ID ("name" "Prog" "version" "1")`)
	w.accepts(a, elsewhere, app.Password)
	w.renewRecovery(a)
	w.command("session", "kill", "--account", a.name)
	w.command("grant", "revoke", a.name, "--all")
	w.command("app-password", "revoke", a.name, app.ID)
	w.rejects(a, home, app.Password, "revoked-app-password")
	w.command("key", "rotate")
	w.refuses([]string{"account", "enroll", a.name}, "refused:")
	w.command("account", "reset", a.name)
	w.command("account", "remove", a.name)
}

// A verification is what audit verify --json says.
type verification struct {
	Events, Last int64
	Head         string
	Broken       *struct {
		ID, Line int64
		Problem  string
	}
}

// verify runs audit verify, which must end with status 1 exactly where something is wrong.
func (w *warden) verify(flags ...string) (v verification) {
	w.t.Helper()
	out, err := w.run("", append([]string{"audit", "verify", "--json"}, flags...)...)
	if e := json.Unmarshal(out, &v); e != nil {
		w.t.Fatalf("audit verify: %v, %v", e, err)
	}
	if (err != nil) != (v.Broken != nil) || err != nil && !strings.Contains(err.Error(), "exit status 1") {
		w.t.Errorf("audit verify: %v, and it says broken: %v", err, v.Broken)
	}
	return v
}

// verifies checks that nothing is wrong with the audit.
func (w *warden) verifies(flags ...string) verification {
	w.t.Helper()
	v := w.verify(flags...)
	if v.Broken != nil {
		w.t.Errorf("audit verify %s: %+v", strings.Join(flags, " "), *v.Broken)
	}
	return v
}

func TestAuditVerify(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	w.someOfEverything()
	if v, all := w.verifies(), lines[event](w, "audit", "--limit", "1000"); v.Events != int64(len(all)) || v.Events < 15 {
		t.Errorf("%d events are verified of %d", v.Events, len(all))
	}
	w.stop()
	before := w.verifies()
	file := filepath.Join(w.dir, "imapwarden.db")
	untouched := mustRead(t, file)

	for name, change := range map[string]struct{ statement, says string }{
		"another outcome": {"UPDATE events SET outcome = 'failed' WHERE id = 5", "event 5 was changed"},
		"another account": {"UPDATE events SET account = 'x@example.test' WHERE id = 5", "event 5 was changed"},
		"another time":    {"UPDATE events SET time = time + 1 WHERE id = 5", "event 5 was changed"},
		"removed":         {"DELETE FROM events WHERE id = 4", "event 5 was changed, or one before it was removed"},
		"without a hash":  {"UPDATE events SET hash = x'' WHERE id = 5", "event 5 has no hash"},
		"swapped": {
			"UPDATE events SET id = -1 WHERE id = 5; UPDATE events SET id = 5 WHERE id = 6; UPDATE events SET id = 6 WHERE id = -1", "event 5 was changed",
		},
	} {
		w.changeStore(change.statement)
		out, err := w.run("", "audit", "verify")
		if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(string(out), change.says) {
			t.Errorf("%s: audit verify: %v\n%s", name, err, out)
		}
		if v := w.verify(); v.Broken != nil && v.Broken.ID != 5 {
			t.Errorf("%s: audit verify --json names event %d", name, v.Broken.ID)
		}
		write(t, file, untouched)
	}
	if after := w.verifies(); after != before {
		t.Errorf("put back, it is %+v, and was %+v", after, before)
	}
}

// changeStore does to the store of a server that doesn't run what its owner shouldn't.
func (w *warden) changeStore(statements string) {
	w.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "imapwarden.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statements + "; PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		w.t.Fatal(err)
	}
}

// The file has what the store has, whatever happens to the server and to the file.
func TestAuditFile(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{more: "[audit]\nfile = \"$dir/events.jsonl\""})
	a := w.enrolled(anyPassword())
	w.accepts(a, home, a.withRecovery(t))
	w.rejects(a, elsewhere, a.withWrongCode(t), "wrong-code")
	w.kill()
	w.start()
	w.accepts(a, home, a.password)
	w.kill()
	// Written past the server, and found by the next one.
	w.renewRecovery(a)
	w.start()
	file, moved := filepath.Join(w.dir, "events.jsonl"), filepath.Join(w.dir, "moved.jsonl")
	w.fileHas(file)
	if err := os.Rename(file, moved); err != nil {
		t.Fatal(err)
	}
	w.accepts(a, home, a.password)
	w.accepts(a, home, a.withRecovery(t))
	w.fileHas(moved, file)
	w.accepts(a, home, a.password)
	w.stop()
	w.fileHas(moved, file)
	for _, f := range []string{moved, file} {
		w.verifies("--file", f)
	}

	text := mustRead(t, moved)
	write(t, moved, strings.Replace(text, `"reason":"wrong-code"`, `"reason":"wrong-tune"`, 1))
	if v := w.verify("--file", moved); v.Broken == nil || v.Broken.Line != 3 {
		t.Errorf("a changed file: %+v", v.Broken)
	}
	write(t, moved, text)
	w.changeStore("DELETE FROM events WHERE id = (SELECT max(id) FROM events)")
	w.verifies() // the chain can't tell, and the file can
	if v := w.verify("--file", file); v.Broken == nil || !strings.Contains(v.Broken.Problem, "the store ends before event") {
		t.Errorf("a store whose end was cut off: %+v", v.Broken)
	}
}

// fileHas waits until the files together have what the store has.
func (w *warden) fileHas(files ...string) {
	w.t.Helper()
	diff := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var exported strings.Builder
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil && !os.IsNotExist(err) {
				w.t.Fatal(err)
			}
			exported.Write(text)
		}
		if diff = cmp.Diff(string(w.command("audit", "--json", "--limit", "1000")), exported.String()); diff == "" {
			return
		}
	}
	w.t.Errorf("the store and the file differ (-store +file):\n%s", diff)
}

// Who follows the audit sees events as they come, and isn't put off by a restart.
func TestAuditFollow(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	follow := exec.Command(shared.program, "audit", "--follow", "--json", "--account", a.name, "--config", w.config())
	follow.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	guard := time.AfterFunc(patience, func() { follow.Process.Kill() })
	defer guard.Stop()
	seen := bufio.NewScanner(out)
	var ids []string
	sees := func(want string) {
		t.Helper()
		if !seen.Scan() {
			t.Fatalf("audit --follow ended before %s", want)
		}
		var e event
		if err := json.Unmarshal(seen.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, strconv.FormatInt(e.ID, 10))
		if got := fmt.Sprintf("%s %s %s%s", e.Kind, e.Outcome, e.Factor, e.Reason); got != want {
			t.Errorf("audit --follow says %q, want %q", got, want)
		}
	}
	sees("account.enroll accepted ")
	w.accepts(a, home, a.withCode(t))
	sees("login accepted code")
	w.command("app-password", "create", a.name, "--label", "x")
	sees("app-password.create accepted ")
	w.restart(settings{})
	w.accepts(a, home, a.password)
	sees("login accepted grant")

	if err := follow.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := follow.Wait(); err != nil {
		t.Errorf("audit --follow ended with %v", err)
	}
	var stored []string
	for _, e := range w.events(a) {
		stored = append(stored, strconv.FormatInt(e.ID, 10))
	}
	if !slices.Equal(ids, stored) {
		t.Errorf("audit --follow showed %q, and the store has %q", ids, stored)
	}
}

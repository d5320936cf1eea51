package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An appPassword is one as it was printed, once.
type appPassword struct {
	ID, Account, Label, Password string
	Ready                        bool
}

// appPassword issues one for the account. password is given to imapwarden for its vault, where
// it isn't empty.
func (w *warden) appPassword(a *account, password string, flags ...string) appPassword {
	w.t.Helper()
	p, err := w.tryAppPassword(a, password, flags...)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// tryAppPassword is appPassword where that may fail.
func (w *warden) tryAppPassword(a *account, password string, flags ...string) (p appPassword, err error) {
	args := append([]string{"app-password", "create", a.name, "--label", "device", "--json"}, flags...)
	if password != "" {
		args = append(args, "--password-stdin")
	}
	out, err := w.run(password+"\n", args...)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(out, &p); err != nil {
		return p, err
	}
	known.add(strings.ReplaceAll(known.add(p.Password), "-", ""))
	return p, nil
}

// Mail programs take an app password for a password, and it works in all of them at once.
func TestAppPasswordInMailPrograms(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.upstream.newAccount(t, anyPassword())
	app := w.appPassword(a, a.password)
	if app.ID == "" || app.Account != a.name || app.Label != "device" || !app.Ready {
		t.Fatalf("app-password create --json: it has id %q, account %q, label %q, ready %t", app.ID, app.Account, app.Label, app.Ready)
	}
	t.Run("mbsync", func(t *testing.T) {
		local := t.TempDir()
		for _, sub := range []string{"cur", "new", "tmp"} {
			if err := os.MkdirAll(filepath.Join(local, "Inbox", sub), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		w.mbsync(t, a, app.Password, local)
		if got := readMaildir(t, local, func(folder string) string { return folder }); len(got) != 1 {
			t.Errorf("%d messages, want 1", len(got))
		}
	})
	t.Run("fetchmail", func(t *testing.T) {
		if got := w.fetchmail(t, a, app.Password, "starttls"); !strings.Contains(got, "Subject: "+a.name) {
			t.Errorf("got %q", got)
		}
	})
	t.Run("curl", func(t *testing.T) {
		if got := w.curl(t, a, app.Password, "imaps://localhost:"+port(t, w.implicit)+"/INBOX;MAILINDEX=1"); !strings.Contains(got, "Subject: "+a.name) {
			t.Errorf("got %q", got)
		}
	})
	t.Run("neomutt", func(t *testing.T) {
		if got := w.neomutt(t, a, app.Password); !strings.Contains(got, "Subject: "+a.name) {
			t.Errorf("got %q", got)
		}
	})
	t.Run("imaplib, without dashes", func(t *testing.T) {
		w.imaplib(t, a, strings.ReplaceAll(app.Password, "-", ""), false)
	})
	if r := loginQuoted(dialTLS(t, home, w.implicit), a.name, a.password); !r.is("NO [AUTHENTICATIONFAILED]") {
		t.Errorf("the password alone: %s", r.line)
	}
}

// Without the account's password, an app password waits for a sign-in with it and a second
// factor; and again, after it was changed at Dovecot.
func TestAppPasswordFollowsThePassword(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	app := w.appPassword(a, "")
	if app.Ready {
		t.Error("it says that it is ready")
	}
	w.rejects(a, home, app.Password, "password-not-sealed")
	w.accepts(a, home, a.withCode(t))
	w.accepts(a, home, app.Password).holdsMailOf(a)
	w.restart(settings{})
	w.accepts(a, elsewhere, app.Password).holdsMailOf(a)

	a.changePassword(t, w.upstream, anyPassword())
	w.rejects(a, home, app.Password, "sealed-password-outdated")
	refused := w.upstream.refusals(t, a)
	w.rejects(a, home, app.Password, "sealed-password-outdated")
	if again := w.upstream.refusals(t, a); again != refused {
		t.Errorf("Dovecot was asked %d times more with a password that it had refused", again-refused)
	}
	w.accepts(a, home, a.withCode(t))
	w.accepts(a, home, app.Password).holdsMailOf(a)
}

// A lost device's sessions end when its app password is revoked, and nobody else's do.
func TestRevokedAppPassword(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a, other := w.enrolled(anyPassword()), w.enrolled(anyPassword())
	lost, kept, theirs := w.appPassword(a, a.password), w.appPassword(a, a.password), w.appPassword(other, other.password)
	cut := []*conn{w.accepts(a, home, lost.Password), w.accepts(a, elsewhere, lost.Password)}
	stay := []*conn{w.accepts(a, home, kept.Password), w.accepts(a, home, a.withCode(t)), w.accepts(other, home, theirs.Password)}
	cut[1].send("i IDLE\r\n")
	if line := cut[1].read(); !strings.HasPrefix(line, "+") {
		t.Fatalf("IDLE: %q", line)
	}

	w.refuses([]string{"app-password", "revoke", other.name, lost.ID}, "refused:", other.name, lost.ID)
	w.command("app-password", "revoke", a.name, lost.ID)
	for _, c := range cut {
		c.ended()
	}
	for i, c := range stay {
		if r := c.do("NOOP"); !r.is("OK") {
			t.Errorf("session %d: %s", i, r.line)
		}
	}
	w.rejects(a, home, lost.Password, "revoked-app-password")
	w.accepts(a, home, kept.Password)

	w.command("app-password", "revoke", a.name, "--all")
	stay[0].ended()
	if r := stay[1].do("NOOP"); !r.is("OK") {
		t.Errorf("the session of the password and a code: %s", r.line)
	}
	w.rejects(a, elsewhere, kept.Password, "revoked-app-password") // from home it would be counted with the one before
	w.rejects(a, home, theirs.Password, "unknown-app-password")
}

func TestReadOnlyAppPassword(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.upstream.newAccount(t, anyPassword())
	before := maildirNames(t, w.upstream.maildir(a))
	c := w.accepts(a, home, w.appPassword(a, a.password, "--read-only").Password)
	if r := c.do("SELECT INBOX"); !r.is("OK [READ-ONLY]") {
		t.Fatalf("SELECT: %s", r.line)
	}
	if r := c.do("FETCH 1 BODY[]"); !r.is("OK") || !r.has("Subject: "+a.name) {
		t.Errorf("FETCH: %s", r.line)
	}
	for _, command := range []string{
		`STORE 1 +FLAGS (\Seen \Deleted)`, `UID STORE 1 +FLAGS (\Flagged)`, "EXPUNGE", "APPEND INBOX {5+}\r\nhello",
		"COPY 1 INBOX", "UID MOVE 1 INBOX", "CREATE Another", "DELETE INBOX", "SUBSCRIBE Another",
	} {
		if r := c.do(command); !r.is("BAD") {
			t.Errorf("%s: %s", command, r.line)
		}
	}
	if r := c.do("CLOSE"); !r.is("OK") {
		t.Errorf("CLOSE: %s", r.line)
	}
	if r := c.do("LOGOUT"); !r.is("OK") {
		t.Errorf("LOGOUT: %s", r.line)
	}
	// Dovecot moves new messages to cur, whatever is done: then without any flag.
	after := maildirNames(t, w.upstream.maildir(a))
	if len(before) != 1 || len(after) != 1 || strings.TrimSuffix(after[0], ":2,") != before[0] {
		t.Errorf("the mailbox had %q, and has %q", before, after)
	}
}

// maildirNames returns the files of an inbox; their names say which flags messages have.
func maildirNames(t *testing.T, maildir string) (names []string) {
	t.Helper()
	for _, sub := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(maildir, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			// Dovecot may add sizes to the name.
			name, flags, _ := strings.Cut(e.Name(), ":")
			name, _, _ = strings.Cut(name, ",")
			if flags != "" {
				name += ":" + flags
			}
			names = append(names, name)
		}
	}
	return names
}

func TestLimitedAppPasswords(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.upstream.newAccount(t, anyPassword())
	there := w.appPassword(a, a.password, "--network", "127.0.9.0/24", "--network", "192.0.2.1", "--expires", "1h")
	w.rejects(a, home, there.Password, "app-password-network")
	w.accepts(a, elsewhere, there.Password).holdsMailOf(a)

	brief := w.appPassword(a, a.password, "--expires", "1s")
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		c, r := w.login(a, home, brief.Password)
		c.Close()
		if !r.is("OK") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it doesn't expire")
		}
	}
	w.rejects(a, home, brief.Password, "expired-app-password")
	for _, flags := range [][]string{{"--expires", "2020-01-31"}, {"--label", strings.Repeat("x", 65)}} {
		w.refuses(append([]string{"app-password", "create", a.name, "--label", "x"}, flags...), "refused:")
	}
}

func TestNumberOfAppPasswords(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.upstream.newAccount(t, anyPassword())
	for range 24 {
		w.appPassword(a, "")
	}
	last := w.appPassword(a, a.password)
	create := []string{"app-password", "create", a.name, "--label", "one more"}
	w.refuses(create, "refused:", "25 app passwords", "app-password revoke "+a.name)
	w.accepts(a, home, last.Password)
	w.command("app-password", "revoke", a.name, last.ID)
	w.command(create...)
	w.refuses(create, "refused:")
}

// The owner of a list of devices knows them by label and last use. A mail program says what it
// is before login, or only after it.
func TestAppPasswordList(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.upstream.newAccount(t, anyPassword())
	before := w.appPassword(a, a.password, "--label", "before login")
	after := w.appPassword(a, a.password, "--label", "after login")
	never := w.appPassword(a, a.password, "--label", "never used", "--read-only", "--network", "192.0.2.0/24")
	w.appPassword(a, "", "--label", "unsealed")

	early := dialTLS(t, home, w.implicit)
	early.do(`ID ("name" "Early" "version" "1.5")`)
	early.mustLogin(a.name, before.Password)
	late := w.accepts(a, elsewhere, after.Password)
	if r := late.do(`ID ("name" "Late" "vendor" "x")`); !r.is("OK") {
		t.Fatalf("ID: %s", r.line)
	}
	// Uses are written to the store now and then, and at the end.
	early.Close()
	late.Close()
	w.restart(settings{})

	type summary struct {
		ID, Label string
		Ready     bool
		ReadOnly  bool `json:"read_only"`
		Networks  []string
		LastUse   struct{ Source, Program string } `json:"last_use"`
	}
	list := lines[summary](w, "app-password", "list", a.name)
	if len(list) != 4 {
		t.Fatalf("%d app passwords, want 4", len(list))
	}
	if got := list[0]; got.ID != before.ID || got.Label != "before login" || !got.Ready || got.LastUse.Source != home || got.LastUse.Program != "Early 1.5" {
		t.Errorf("the first is %+v", got)
	}
	if got := list[1]; got.ID != after.ID || got.LastUse.Source != elsewhere || got.LastUse.Program != "Late" {
		t.Errorf("the second is %+v", got)
	}
	if got := list[2]; got.ID != never.ID || got.LastUse.Source != "" || !got.ReadOnly || len(got.Networks) != 1 || got.Networks[0] != "192.0.2.0/24" {
		t.Errorf("the third is %+v", got)
	}
	if got := list[3]; got.Ready || got.Label != "unsealed" {
		t.Errorf("the fourth is %+v", got)
	}
	table := string(w.command("app-password", "list"))
	for _, want := range []string{a.name, before.ID, "Early 1.5", "Late", "never used", "read-only", "waits for a sign-in"} {
		if !strings.Contains(table, want) {
			t.Errorf("the table of all lacks %q:\n%s", want, table)
		}
	}
}

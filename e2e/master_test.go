package e2e

import (
	"fmt"
	"path/filepath"
	"testing"
)

// masterLogin is lines of [[upstream]] for a master user whose password is in the file
// master.password of the warden's folder.
func masterLogin(style string) string {
	return fmt.Sprintf("login = \"master\"\nmaster = { user = %q, password_file = \"$dir/master.password\", style = %q, separator = \"*\" }", masterUser, style)
}

// startWithMaster starts a warden that signs in to Dovecot as its master user, by this password.
func startWithMaster(t *testing.T, style, password string) *warden {
	t.Helper()
	s := settings{login: masterLogin(style)}
	w := prepareWarden(t, s)
	write(t, filepath.Join(w.dir, "master.password"), password+"\n")
	w.start()
	return w
}

// With a master user, app passwords work without the account's password; that is still
// judged by Dovecot, with the user's own login.
func TestMasterUser(t *testing.T) {
	t.Parallel()
	for _, style := range []string{"authzid", "separator"} {
		t.Run(style, func(t *testing.T) {
			t.Parallel()
			w := startWithMaster(t, style, shared.dovecot.master)
			a, other := w.enrolled(anyPassword()), w.upstream.newAccount(t, anyPassword())
			app := w.appPassword(a, "")
			if !app.Ready {
				t.Error("app-password create doesn't say that it is ready")
			}
			w.accepts(a, home, app.Password).holdsMailOf(a)
			if r := w.accepts(a, elsewhere, app.Password).do("LOGOUT"); !r.is("OK") {
				t.Errorf("LOGOUT: %s", r.line)
			}
			w.rejects(other, home, app.Password, "unknown-app-password")

			w.rejects(a, home, a.withWrongCode(t), "wrong-code")
			w.rejects(a, home, known.add(anyPassword())+a.withRecovery(t)[len(a.password):], "wrong-password")
			w.rejects(a, home, shared.dovecot.master, "wrong-password")
			w.rejects(a, home, a.password, "no-code")
			w.accepts(a, home, a.withCode(t)).holdsMailOf(a)

			// A changed password is nothing to app passwords: they don't need it.
			a.changePassword(t, w.upstream, anyPassword())
			w.accepts(a, home, app.Password).holdsMailOf(a)
		})
	}
}

// A master password that Dovecot refuses is no fault of who signs in, and the others still can.
func TestWrongMasterPassword(t *testing.T) {
	t.Parallel()
	w := startWithMaster(t, "authzid", known.add(anyPassword()))
	a := w.enrolled(anyPassword())
	app := w.appPassword(a, "")
	if _, r := w.login(a, home, app.Password); !r.is("NO [UNAVAILABLE]") {
		t.Errorf("an app password: %s", r.line)
	}
	if e := w.lastLogin(a); e.Outcome != "failed" || e.Reason != "upstream-unavailable" {
		t.Errorf("the audit says %s, %s", e.Outcome, e.Reason)
	}
	w.accepts(a, home, a.withCode(t)).holdsMailOf(a)
}

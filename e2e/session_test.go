package e2e

import (
	"strings"
	"testing"
)

// An administrator sees who is logged in, with what, and can end that.
func TestSessions(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a, other := w.enrolled(anyPassword()), w.enrolled(anyPassword())
	app := w.appPassword(a, a.password, "--read-only")
	dialTLS(t, home, w.implicit) // hasn't logged in, and so isn't listed
	coded, device, theirs := w.accepts(a, home, a.withCode(t)), w.accepts(a, elsewhere, app.Password), w.accepts(other, home, other.withCode(t))
	device.do(`ID ("name" "Phone")`)

	type session struct {
		ID, Account, Source, Program, Factor string
		AppPassword                          string `json:"app_password"`
		ReadOnly                             bool   `json:"read_only"`
	}
	list := lines[session](w, "session", "list", "--account", a.name)
	if len(list) != 2 || len(lines[session](w, "session", "list")) != 3 {
		t.Fatalf("session list has %d of the account: %+v", len(list), list)
	}
	if got := list[0]; got.Account != a.name || got.Source != home || got.Factor != "code" || got.AppPassword != "" || got.ReadOnly {
		t.Errorf("the first is %+v", got)
	}
	if got := list[1]; got.Source != elsewhere || got.Factor != "app-password" || got.AppPassword != app.ID || got.Program != "Phone" || !got.ReadOnly {
		t.Errorf("the second is %+v", got)
	}
	if table := string(w.command("session", "list")); !strings.Contains(table, list[1].ID) || !strings.Contains(table, other.name) {
		t.Errorf("session list says\n%s", table)
	}

	w.command("session", "kill", list[1].ID)
	device.ended()
	w.refuses([]string{"session", "kill", list[1].ID}, "refused:", "session list")
	for i, c := range []*conn{coded, theirs} {
		if r := c.do("NOOP"); !r.is("OK") {
			t.Errorf("session %d: %s", i, r.line)
		}
	}
	w.command("session", "kill", "--account", a.name)
	coded.ended()
	if r := theirs.do("NOOP"); !r.is("OK") {
		t.Errorf("another account's session: %s", r.line)
	}
	w.accepts(a, elsewhere, app.Password) // it ends sessions, and takes nothing away
	w.stop()
	w.refuses([]string{"session", "list"}, "only a running server has sessions")
}

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// The way from nobody to everybody: observe, look at the report, require it of some.
func TestStepsToRequired(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{mode: "observe"})
	bare, other, device, coded := w.upstream.newAccount(t, anyPassword()), w.upstream.newAccount(t, anyPassword()), w.upstream.newAccount(t, anyPassword()), w.enrolled(anyPassword())
	app := w.appPassword(device, device.password)
	w.accepts(bare, home, bare.password).holdsMailOf(bare)
	w.accepts(other, home, other.password)
	w.accepts(device, home, app.Password)
	w.accepts(coded, home, coded.withCode(t))
	w.accepts(coded, home, coded.password)

	type usage struct {
		Account   string
		LockedOut bool `json:"locked_out"`
		Why       string
	}
	lockedOut := map[string]bool{}
	for _, u := range lines[usage](w, "report") {
		lockedOut[u.Account] = u.LockedOut
		if u.LockedOut != (u.Why != "") {
			t.Errorf("report says of %s: locked out %t, %q", u.Account, u.LockedOut, u.Why)
		}
	}
	for a, want := range map[*account]bool{bare: true, other: true, device: false, coded: false} {
		if got, ok := lockedOut[a.name]; !ok || got != want {
			t.Errorf("report says that it would be locked out: %t (listed: %t), want %t", got, ok, want)
		}
	}
	text := string(w.command("report"))
	if _, end, ok := strings.Cut(text, "would lock out 2 accounts"); !ok || !strings.Contains(end, bare.name) || !strings.Contains(end, other.name) || strings.Contains(end, device.name) {
		t.Errorf("report ends with\n%s", text)
	}

	rule := fmt.Sprintf("[[rule]]\nname = \"first\"\naccounts = [%q]\nsecond_factor = \"required\"", bare.name)
	w.restart(settings{mode: "observe", more: rule})
	w.rejects(bare, home, bare.password, "not-enrolled")
	if e := w.lastLogin(bare); e.Rule != "first" {
		t.Errorf("the audit names the rule %q", e.Rule)
	}
	w.accepts(other, home, other.password)
	w.accepts(device, home, app.Password)
	w.explains(bare, home, `"first"`, "required of everybody", "password alone: refused")
	w.explains(other, home, "No rule matches", "password alone: accepted")

	// Who was locked out enrols, and is in again.
	w.enroll(bare)
	w.accepts(bare, home, bare.withCode(t))
	w.accepts(bare, home, bare.password)
}

// explains checks what imapwarden says would come of a login from there.
func (w *warden) explains(a *account, from string, says ...string) {
	w.t.Helper()
	text := string(w.command("explain", "--account", a.name, "--source", from))
	for _, want := range says {
		if !strings.Contains(text, want) {
			w.t.Errorf("explain doesn't say %q:\n%s", want, text)
		}
	}
}

func TestDenied(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{more: `
[[rule]]
name = "not from there"
networks = ["127.0.9.0/24"]
action = "deny"
`})
	a := w.enrolled(anyPassword())
	if _, r := w.login(a, elsewhere, a.withRecovery(t)); !r.is("NO [UNAVAILABLE]") {
		t.Errorf("from where a rule denies it: %s", r.line)
	}
	if e := w.lastLogin(a); e.Outcome != "refused" || e.Reason != "rule-denied" || e.Rule != "not from there" {
		t.Errorf("the audit says %s, %s, %q", e.Outcome, e.Reason, e.Rule)
	}
	if w.upstream.heardOf(t, a) {
		t.Error("Dovecot was asked")
	}
	w.accepts(a, home, a.withRecovery(t))
	w.explains(a, elsewhere, `"not from there"`, "refuses every login")

	var e struct {
		Rule struct {
			Rule   string
			Denied bool
		}
	}
	if err := json.Unmarshal(w.command("explain", "--account", a.name, "--source", elsewhere, "--json"), &e); err != nil || !e.Rule.Denied || e.Rule.Rule != "not from there" {
		t.Errorf("explain --json: %+v, %v", e.Rule, err)
	}
}

func TestRulesForSessions(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{mode: "optional", more: `
[[rule]]
networks = ["127.0.9.0/24"]
read_only = true

[[rule]]
max_sessions = 2
`})
	a := w.upstream.newAccount(t, anyPassword())
	first, second := w.accepts(a, home, a.password), w.accepts(a, work, a.password)
	if _, r := w.login(a, road, a.password); !r.is("NO [LIMIT]") {
		t.Errorf("a third session: %s", r.line)
	}
	if e := w.lastLogin(a); e.Reason != "connections-account" {
		t.Errorf("the audit says %s", e.Reason)
	}
	second.do("LOGOUT")
	second.ended()
	second.Close()
	if r := first.do("NOOP"); !r.is("OK") {
		t.Errorf("the first session: %s", r.line)
	}
	// Its place is free a moment after its end.
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if _, r := w.login(a, work, a.password); r.is("OK") {
			break
		} else if !r.is("NO [LIMIT]") || time.Now().After(deadline) {
			t.Fatalf("a session in the place of one that has ended: %s", r.line)
		}
	}

	c := w.accepts(w.upstream.newAccount(t, a.password), elsewhere, a.password)
	if r := c.do("SELECT INBOX"); !r.is("OK [READ-ONLY]") {
		t.Errorf("SELECT where a rule says read-only: %s", r.line)
	}
	if r := c.do(`STORE 1 +FLAGS (\Seen)`); !r.is("BAD") {
		t.Errorf("STORE there: %s", r.line)
	}
}

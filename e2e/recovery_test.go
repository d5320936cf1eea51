package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Ten recovery codes stand for ten codes, each once, before and after a restart.
func TestRecoveryCodes(t *testing.T) {
	t.Parallel()
	// It isn't about limits, and used codes tried from elsewhere count as guesses.
	s := settings{more: "[limits]\nmode = \"observe\""}
	w := startWarden(t, s)
	a := w.enrolled(anyPassword())
	var used []string
	spend := func(n int) {
		t.Helper()
		for range n {
			secret := a.withRecovery(t)
			used = append(used, secret)
			// Each from a network of its own, where no grant helps.
			from := fmt.Sprintf("127.0.%d.1", 20+len(used))
			w.accepts(a, from, secret)
			w.accepts(a, from, a.password)
		}
	}
	spend(4)
	w.kill()
	w.start()
	spend(4)
	// A phone's keyboard begins with a capital.
	capital := a.password + strings.ToUpper(a.recovery[0])
	w.accepts(a, "127.0.40.1", capital)
	kept := a.recovery[1]
	for i, secret := range append(used, known.add(capital)) {
		if _, r := w.login(a, elsewhere, secret); !r.is("NO [AUTHENTICATIONFAILED]") {
			t.Errorf("code %d again, from elsewhere: %s", i+1, r.line)
		}
	}

	var warned []bool
	for _, e := range w.events(a) {
		if e.Factor == "recovery" && e.Outcome == "accepted" {
			warned = append(warned, strings.HasPrefix(e.Detail, "warning: only "))
		}
	}
	if want := []bool{false, false, false, false, false, false, true, true, true}; !slices.Equal(warned, want) {
		t.Errorf("sign-ins with a recovery code gave a warning: %t, want %t", warned, want)
	}
	w.renewRecovery(a)
	if len(a.recovery) != 10 {
		t.Fatalf("account recovery gave %d codes", len(a.recovery))
	}
	if _, r := w.login(a, elsewhere, a.password+kept); !r.is("NO [AUTHENTICATIONFAILED]") {
		t.Errorf("an old code after there were new ones: %s", r.line)
	}
	w.accepts(a, elsewhere, a.withRecovery(t))
	var shown struct {
		RecoveryCodes int `json:"recovery_codes"`
	}
	if err := json.Unmarshal(w.command("account", "show", a.name, "--json"), &shown); err != nil || shown.RecoveryCodes != 9 {
		t.Errorf("account show says that %d are left, %v; want 9", shown.RecoveryCodes, err)
	}
	// The authenticator itself goes on.
	w.accepts(a, "127.0.41.1", a.withCode(t))
}

// renewRecovery gives the account new recovery codes.
func (w *warden) renewRecovery(a *account) {
	w.t.Helper()
	var renewed struct {
		Account       string
		RecoveryCodes []string `json:"recovery_codes"`
	}
	if err := json.Unmarshal(w.command("account", "recovery", a.name, "--json"), &renewed); err != nil || renewed.Account != a.name {
		w.t.Fatalf("account recovery --json: account %q, %v", renewed.Account, err)
	}
	a.recovery = renewed.RecoveryCodes
	for _, code := range a.recovery {
		known.add(code)
	}
}

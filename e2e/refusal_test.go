package e2e

import (
	"strings"
	"testing"
)

// Whichever part is wrong, the refusal is the same bytes: else a sprayed
// password that was right would show.
func TestRefusalsAreAlike(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	used := a.withCode(t)
	dialTLS(t, home, w.implicit).mustLogin(a.name, used)
	wrong := known.add(anyPassword())

	first := ""
	for _, test := range []struct{ name, account, password string }{
		{"wrong password", a.name, wrong},
		{"wrong password with a right code", a.name, wrong + a.withCode(t)[len(a.password):]},
		{"right password without a code", a.name, a.password},
		{"right password with a wrong code", a.name, a.withWrongCode(t)},
		{"replay of a used code", a.name, used},
		{"unknown account", randomLetters(9) + "@example.test", wrong},
	} {
		c := dialTLS(t, elsewhere, w.implicit)
		r := loginQuoted(c, test.account, test.password)
		if !r.is("NO [AUTHENTICATIONFAILED]") {
			t.Errorf("%s: %s", test.name, r.line)
		}
		if first == "" {
			first = r.line
		}
		if r.line != first || len(r.untagged) > 0 {
			t.Errorf("%s: %q after %q, but the first refusal was %q", test.name, r.line, r.untagged, first)
		}
		// The connection is kept: neomutt tries three mechanisms on it.
		if r := c.do("NOOP"); !r.is("OK") {
			t.Errorf("NOOP after a refusal: %s", r.line)
		}
	}
}

func TestThirdRefusalEndsTheConnection(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	c := dialTLS(t, home, w.implicit)
	for range 2 {
		if r := loginQuoted(c, a.name, known.add(anyPassword())); !r.is("NO [AUTHENTICATIONFAILED]") || r.has("* BYE") {
			t.Fatalf("got %s after %q", r.line, r.untagged)
		}
	}
	c.send("z LOGIN " + a.name + " " + known.add(anyPassword()) + "\r\n")
	lines := strings.Join(c.ended(), "\n") + "\n"
	if !strings.Contains(lines, "* BYE") || !strings.Contains(lines, "z NO [AUTHENTICATIONFAILED]") {
		t.Errorf("the third refusal is %q", lines)
	}
}

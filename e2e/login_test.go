package e2e

import (
	"strings"
	"testing"
)

func TestLoginForms(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	const awkward = `p "q\s` + "\\" + ` pässwörd ✓ %{u}`
	for _, test := range []struct {
		name     string
		login    loginForm
		password string
	}{
		{"LOGIN with atoms", loginAtoms, "plain-" + randomLetters(8)},
		{"LOGIN with quoted strings", loginQuoted, `a b"c\d ` + randomLetters(8)},
		{"LOGIN with synchronizing literals", loginLiterals, awkward + randomLetters(8)},
		{"LOGIN with non-synchronizing literals", loginPlusLiterals, awkward + randomLetters(8)},
		{"AUTHENTICATE PLAIN", authPlain, awkward + randomLetters(8)},
		{"AUTHENTICATE PLAIN with initial response", authPlainInitial, awkward + randomLetters(8)},
		{"AUTHENTICATE PLAIN with the same authorization identity", authPlainSame, awkward + randomLetters(8)},
		{"AUTHENTICATE LOGIN", authLogin, awkward + randomLetters(8)},
		{"AUTHENTICATE LOGIN with initial response", authLoginInitial, awkward + randomLetters(8)},
		// Digits at the end of a password are no code.
		{"a password that ends in digits", loginQuoted, randomLetters(8) + "123456"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := w.enrolled(test.password)
			c := dialTLS(t, home, w.implicit)
			r := test.login(c, a.name, a.withCode(t))
			if !r.is("OK") {
				t.Fatalf("with a code: %s", r.line)
			}
			c.holdsMailOf(a)

			// Under the grant that this gave, the password alone is enough.
			c = dialTLS(t, home, w.implicit)
			if r := test.login(c, a.name, a.password); !r.is("OK") {
				t.Fatalf("under the grant: %s", r.line)
			}
			c.holdsMailOf(a)
		})
	}
}

// The upstream's capabilities show, less what would undo the login.
func TestCapabilitiesAfterLogin(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	c := dialTLS(t, home, w.implicit)
	r := loginQuoted(c, a.name, a.withCode(t))
	for _, capability := range []string{"IDLE", "MOVE", "CONDSTORE", "LIST-EXTENDED"} {
		if !hasWord(r.line, capability) {
			t.Errorf("the login's OK lacks %s: %s", capability, r.line)
		}
	}
	for _, capability := range []string{"STARTTLS", "LOGINDISABLED", "AUTH=", "SASL-IR"} {
		if strings.Contains(r.line, capability) {
			t.Errorf("the login's OK shows %s: %s", capability, r.line)
		}
	}
}

func TestNamesMeetOneAccount(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	for _, name := range []string{strings.ToUpper(a.name), " " + a.name, a.name + " ", strings.Replace(a.name, "@", "%", 1)} {
		c := dialTLS(t, elsewhere, w.implicit)
		if r := loginQuoted(c, name, a.password); !r.is("NO") {
			t.Errorf("the name as %q went past the second factor: %s", name, r.line)
		}
	}
	c := dialTLS(t, home, w.implicit)
	c.mustLogin(strings.ToUpper(a.name), a.withCode(t))
	c.holdsMailOf(a)
}

func TestModes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		mode                 string
		unenrolled, enrolled string // what the password alone gets
	}{
		{"observe", "OK", "OK"},
		{"optional", "OK", "NO [AUTHENTICATIONFAILED]"},
		{"required", "NO [AUTHENTICATIONFAILED]", "NO [AUTHENTICATIONFAILED]"},
	} {
		t.Run(test.mode, func(t *testing.T) {
			w := startWarden(t, settings{mode: test.mode})
			// Six digits at the end are part of the password where no code can be meant.
			unenrolled := w.upstream.newAccount(t, randomLetters(8)+"123456")
			enrolled := w.enrolled(anyPassword())
			for a, want := range map[*account]string{unenrolled: test.unenrolled, enrolled: test.enrolled} {
				c := dialTLS(t, home, w.implicit)
				if r := loginQuoted(c, a.name, a.password); !r.is(want) {
					t.Errorf("the password alone, enrolled %t: %s, want %s", a == enrolled, r.line, want)
				}
				if want == "OK" {
					c.holdsMailOf(a)
				}
				// No mode lets a wrong password in.
				c = dialTLS(t, home, w.implicit)
				if r := loginQuoted(c, a.name, known.add(anyPassword())); !r.is("NO [AUTHENTICATIONFAILED]") {
					t.Errorf("a wrong password, enrolled %t: %s", a == enrolled, r.line)
				}
			}
			c := dialTLS(t, home, w.implicit)
			c.mustLogin(enrolled.name, enrolled.withCode(t))
		})
	}
}

func hasWord(line, word string) bool {
	for _, field := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" []()", r) }) {
		if field == word {
			return true
		}
	}
	return false
}

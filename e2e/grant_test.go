package e2e

import "testing"

func TestFirstGrant(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	stored := a.withCode(t)
	try := func(from, password string) reply {
		t.Helper()
		return loginQuoted(dialTLS(t, from, w.implicit), a.name, password)
	}
	if r := try(home, a.password); !r.is("NO") {
		t.Fatalf("the password alone, before any code: %s", r.line)
	}
	if r := try(home, stored); !r.is("OK") {
		t.Fatalf("password and code: %s", r.line)
	}
	for _, test := range []struct{ name, from, password, want string }{
		{"the same password and code, by now stale", home, stored, "OK"},
		{"the password alone", home, a.password, "OK"},
		{"another address of the network", "127.0.0.77", a.password, "OK"},
		{"a wrong password", home, known.add(anyPassword()), "NO [AUTHENTICATIONFAILED]"},
		{"the same password and code from another network", elsewhere, stored, "NO [AUTHENTICATIONFAILED]"},
		{"the password alone from another network", elsewhere, a.password, "NO [AUTHENTICATIONFAILED]"},
	} {
		if r := try(test.from, test.password); !r.is(test.want) {
			t.Errorf("%s: %s, want %s", test.name, r.line, test.want)
		}
	}

	// A code of its own gives the other network a grant of its own.
	if r := try(elsewhere, a.withCode(t)); !r.is("OK") {
		t.Errorf("a new code from another network: %s", r.line)
	}
	if r := try(elsewhere, a.password); !r.is("OK") {
		t.Errorf("the password alone from there, now: %s", r.line)
	}
}

// A mail program opens several connections at once with the one password that
// it stores: one of them spends the code, and all get in.
func TestLoginsAtTheSameMoment(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	stored := a.withCode(t)
	conns := make([]*conn, 5)
	for i := range conns {
		conns[i] = dialTLS(t, home, w.implicit)
	}
	sendTogether(t, conns, "z LOGIN "+a.name+" "+stored+"\r\n")
	for i, c := range conns {
		if r := c.await("z"); !r.is("OK") {
			t.Errorf("connection %d: %s", i, r.line)
			continue
		}
		c.holdsMailOf(a)
	}
}

// A used code stays used when the process dies without a moment's notice.
func TestUsedCodeAfterKill(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	used := a.withCode(t)
	dialTLS(t, home, w.implicit).mustLogin(a.name, used)
	w.kill()
	w.start()
	for _, from := range []string{elsewhere, "127.0.10.1"} {
		if r := loginQuoted(dialTLS(t, from, w.implicit), a.name, used); !r.is("NO [AUTHENTICATIONFAILED]") {
			t.Errorf("a used code from %s: %s", from, r.line)
		}
	}
	// The grant outlived the process too.
	dialTLS(t, home, w.implicit).mustLogin(a.name, used)
	dialTLS(t, home, w.implicit).mustLogin(a.name, a.password)
}

// A grant belongs to the password that it was given for.
func TestChangedPasswordEndsTheGrant(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	dialTLS(t, home, w.implicit).mustLogin(a.name, a.withCode(t))
	a.changePassword(t, w.upstream, anyPassword())
	if r := loginQuoted(dialTLS(t, home, w.implicit), a.name, a.password); !r.is("NO [AUTHENTICATIONFAILED]") {
		t.Errorf("the new password without a code: %s", r.line)
	}
	dialTLS(t, home, w.implicit).mustLogin(a.name, a.withCode(t))
	dialTLS(t, home, w.implicit).mustLogin(a.name, a.password)
}

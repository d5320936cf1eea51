package e2e

import (
	"strings"
	"testing"
)

// RFC 9051, section 6.2.1, and RFC 8314: before TLS nothing that carries
// credentials works, and is answered at once, without a continuation request.
func TestNothingBeforeStartTLS(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{mode: "optional"})
	a := w.upstream.newAccount(t, "pw-"+randomLetters(8))

	c := dial(t, home, w.starttls)
	r := c.do("CAPABILITY")
	offered := strings.Join(r.untagged, " ")
	if !hasWord(offered, "STARTTLS") || !hasWord(offered, "LOGINDISABLED") || strings.Contains(offered, "AUTH=") {
		t.Errorf("capabilities before TLS: %q", offered)
	}

	plusLiteral := "{8+}\r\npassword"
	for name, command := range map[string]string{
		"LOGIN with atoms":                         "LOGIN " + a.name + " " + a.password,
		"LOGIN with quoted strings":                "LOGIN " + quoted(a.name) + " " + quoted(a.password),
		"LOGIN with a synchronizing literal":       "LOGIN {5}",
		"LOGIN with a non-synchronizing literal":   "LOGIN " + a.name + " " + plusLiteral,
		"AUTHENTICATE PLAIN":                       "AUTHENTICATE PLAIN",
		"AUTHENTICATE PLAIN with initial response": "AUTHENTICATE PLAIN " + known.add(sasl("\x00"+a.name+"\x00"+a.password)),
		"AUTHENTICATE LOGIN":                       "AUTHENTICATE LOGIN",
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, home, w.starttls)
			if r := c.do(command); !r.is("NO [PRIVACYREQUIRED]") {
				t.Errorf("got %s", r.line)
			}
			// Nothing of it was left to be read as a command, and TLS still works.
			if r := c.do("NOOP"); !r.is("OK") {
				t.Errorf("NOOP: %s", r.line)
			}
			c.upgrade()
			c.mustLogin(a.name, a.password)
			c.holdsMailOf(a)
		})
	}
	for _, command := range []string{"SELECT INBOX", `LIST "" *`, "ENABLE IMAP4rev2"} {
		if r := dial(t, home, w.starttls).do(command); r.is("OK") {
			t.Errorf("%s works before TLS: %s", command, r.line)
		}
	}
	if n := strings.Count(mustRead(t, w.upstream.log()), a.name); n == 0 {
		t.Error("Dovecot saw no login at all: this test can't tell")
	}
}

func TestStartTLS(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	c := dial(t, home, w.starttls)
	c.upgrade()
	offered := strings.Join(c.do("CAPABILITY").untagged, " ")
	if hasWord(offered, "STARTTLS") || hasWord(offered, "LOGINDISABLED") || !hasWord(offered, "AUTH=PLAIN") {
		t.Errorf("capabilities after STARTTLS: %q", offered)
	}
	if r := c.do("STARTTLS"); !r.is("BAD") {
		t.Errorf("STARTTLS inside TLS: %s", r.line)
	}
	c.mustLogin(a.name, a.withCode(t))
	c.holdsMailOf(a)
}

// What comes in the same segment as STARTTLS belongs to the handshake, where
// plaintext makes it fail; it is never a command.
func TestStartTLSInjection(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	c := dial(t, home, w.starttls)
	c.send("a1 STARTTLS\r\na2 NOOP\r\na3 LOGOUT\r\n")
	for _, line := range c.ended() {
		if strings.Contains(line, "a2") || strings.Contains(line, "a3") || strings.HasPrefix(line, "* BYE") {
			t.Errorf("a command sent before the handshake was read: %q", line)
		}
	}
}

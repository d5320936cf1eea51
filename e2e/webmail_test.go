package e2e

import (
	"regexp"
	"testing"
	"time"
)

// A webmail host's word for where its user is goes through to the audit and to Dovecot; that of
// everybody else goes nowhere.
func TestWebmailSaysWhereItsUsersAre(t *testing.T) {
	t.Parallel()
	for _, forward := range []string{"id", "proxy-v2"} {
		t.Run(forward, func(t *testing.T) {
			w := startWarden(t, settings{forward: forward, more: "[limits]\nwebmail = [\"" + elsewhere + "/32\"]\n"})
			for said, want := range map[string]map[string]string{
				"198.51.100.7": {elsewhere: "198.51.100.7", home: home},
				"2001:db8::7":  {elsewhere: "2001:db8::7"},
				"nowhere":      {elsewhere: elsewhere},
			} {
				for from, want := range want {
					a := w.enrolled(anyPassword())
					c := dialTLS(t, from, w.implicit)
					if r := c.do(`ID ("name" "Roundcube" "x-originating-ip" "` + said + `" "x-originating-port" "40000")`); !r.is("OK") {
						t.Fatalf("ID: %s", r.line)
					}
					c.mustLogin(a.name, a.withCode(t))
					c.Close()
					if got := w.lastLogin(a).Source; got != want {
						t.Errorf("%s, from %s: the audit says %s, want %s", said, from, got, want)
					}
					if got := w.upstream.sourceOf(t, a); got != want {
						t.Errorf("%s, from %s: Dovecot says rip=%s, want %s", said, from, got, want)
					}
				}
			}
		})
	}
}

// Users of a webmail have grants of their own networks: one's code opens the way for nobody
// who sits elsewhere.
func TestWebmailGrantsAreItsUsers(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{grant: "both", more: "[limits]\nwebmail = [\"" + elsewhere + "/32\"]\n"})
	a := w.enrolled(anyPassword())
	surf := func(addr, password string) reply {
		c := dialTLS(t, elsewhere, w.implicit)
		defer c.Close()
		c.do(`ID ("name" "Roundcube" "x-originating-ip" "` + addr + `")`)
		return loginQuoted(c, a.name, password)
	}
	for _, step := range []struct{ addr, password, answer string }{
		{"198.51.100.7", a.withCode(t), "OK"},
		{"198.51.100.8", a.password, "OK"},
		{"203.0.113.9", a.password, "NO [AUTHENTICATIONFAILED]"},
	} {
		if r := surf(step.addr, step.password); !r.is(step.answer) {
			t.Errorf("from %s: %s, want %s", step.addr, r.line, step.answer)
		}
	}
}

// sourceOf is from where the account has signed in, as Dovecot's log has it. It comes a
// moment later.
func (d *dovecot) sourceOf(t *testing.T, a *account) string {
	t.Helper()
	line := regexp.MustCompile(`imap-login: Info: Login: user=<` + regexp.QuoteMeta(a.name) + `>.* rip=([0-9a-f.:]+),`)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if found := line.FindStringSubmatch(mustRead(t, d.log())); found != nil {
			return found[1]
		}
	}
	t.Fatal("Dovecot logged no login")
	return ""
}

package e2e

import (
	"os"
	"regexp"
	"testing"
	"time"
)

// Dovecot sees the client's real address, by ID and by PROXY header, and no ID that a
// client sends, before or after login, makes it see another.
func TestDovecotSeesTheClient(t *testing.T) {
	t.Parallel()
	for _, forward := range []string{"id", "proxy-v2"} {
		t.Run(forward, func(t *testing.T) {
			w := startWarden(t, settings{forward: forward})
			a := w.enrolled(anyPassword())
			c := dialTLS(t, elsewhere, w.implicit)
			const forged = `ID ("name" "x" "x-originating-ip" "192.0.2.66" "X-Originating-Port" "1" "x-session-id" "forged" "x-proxy-ttl" "9")`
			if r := c.do(forged); !r.is("OK") {
				t.Fatalf("ID: %s", r.line)
			}
			if r := loginQuoted(c, a.name, a.withCode(t)); !r.is("OK") {
				t.Fatalf("login: %s", r.line)
			}
			if r := c.do(forged); !r.is("OK") {
				t.Errorf("ID after login: %s", r.line)
			}
			if r := c.do("LOGOUT"); !r.is("OK") {
				t.Errorf("LOGOUT: %s", r.line)
			}

			line := regexp.MustCompile(`imap-login: Info: Login: user=<` + regexp.QuoteMeta(a.name) + `>.* rip=([0-9.]+), lip=([0-9.]+),.*`)
			var found [][]byte
			for deadline := time.Now().Add(patience); found == nil && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
				text, err := os.ReadFile(w.upstream.log())
				if err != nil {
					t.Fatal(err)
				}
				found = line.FindSubmatch(text)
			}
			if found == nil {
				t.Fatal("Dovecot logged no login")
			}
			if string(found[1]) != elsewhere || string(found[2]) != home {
				t.Errorf("Dovecot logged rip=%s, lip=%s", found[1], found[2])
			}
			text, err := os.ReadFile(w.upstream.log())
			if err != nil {
				t.Fatal(err)
			}
			if regexp.MustCompile(`192\.0\.2\.66|forged`).Match(text) {
				t.Error("a client's forged ID is in Dovecot's log")
			}
		})
	}
}

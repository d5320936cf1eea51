package proxy

import (
	"context"
	"encoding/base64"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/policy"
)

// The codes of RFC 5530, and when: one function chooses.
func TestReplyTo(t *testing.T) {
	tests := []struct {
		outcome audit.Outcome
		reason  string
		code    string
	}{
		{audit.Refused, string(auth.WrongPassword), "AUTHENTICATIONFAILED"},
		{audit.Refused, string(auth.WrongCode), "AUTHENTICATIONFAILED"},
		{audit.Refused, string(auth.ReplayedCode), "AUTHENTICATIONFAILED"},
		{audit.Refused, string(auth.NoCode), "AUTHENTICATIONFAILED"},
		{audit.Refused, string(auth.NotEnrolled), "AUTHENTICATIONFAILED"},
		{audit.Refused, string(auth.Expired), "AUTHENTICATIONFAILED"},
		{audit.Refused, reasonMalformed, "AUTHENTICATIONFAILED"},
		{audit.Refused, reasonName, "AUTHENTICATIONFAILED"},
		{audit.Refused, "something new", "AUTHENTICATIONFAILED"},
		{"", "", "AUTHENTICATIONFAILED"},
		{audit.Refused, string(auth.UnknownAppPassword), "AUTHENTICATIONFAILED"},
		{audit.Refused, string(auth.SealedOutdated), "AUTHENTICATIONFAILED"},
		{audit.Refused, reasonRevoked, "AUTHENTICATIONFAILED"},
		{audit.Refused, reasonForeign, "AUTHORIZATIONFAILED"},
		{audit.Refused, policy.RuleDenied, "UNAVAILABLE"},
		{audit.Refused, policy.AddressLimit, "UNAVAILABLE"},
		{audit.Refused, policy.AccountLimit, "UNAVAILABLE"},
		{audit.Refused, policy.ConnectionsAccount, "LIMIT"},
		{audit.Refused, policy.ConnectionsAccountSource, "LIMIT"},
		{audit.Failed, reasonUnavailable, "UNAVAILABLE"},
		{audit.Failed, reasonStore, "UNAVAILABLE"},
		{audit.Failed, string(auth.WrongPassword), "UNAVAILABLE"},
	}
	all := map[string]string{}
	for _, test := range tests {
		got := replyTo(test.outcome, test.reason)
		if string(got.code) != test.code {
			t.Errorf("%s %s: %s, want %s", test.outcome, test.reason, got.code, test.code)
		}
		if text, known := all[test.code]; known && test.code == "AUTHENTICATIONFAILED" && text != got.text {
			t.Errorf("%s says %q and %q", test.code, text, got.text)
		}
		all[test.code] = got.text
	}
}

func TestTooManySessions(t *testing.T) {
	in(t, func(r *rig) {
		r.Policy.Limits.PerAccountAndAddress = 2
		pair := "secret" + r.code(r.enroll("alice"))
		var open []*peer
		for range 2 {
			p := r.connectTLS(home)
			if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
				t.Fatal(got)
			}
			open = append(open, p)
		}
		p := r.connectTLS(home)
		if got := p.login("alice", pair); !strings.HasPrefix(got, "l NO [LIMIT]") {
			t.Errorf("the third: %s", got)
		}
		open[0].hangUp()
		if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
			t.Errorf("after one has ended: %s", got)
		}
		open[1].hangUp()
		p.hangUp()
	})
}

// A good login is never delayed.
func TestGoodLoginIsNotDelayed(t *testing.T) {
	in(t, func(r *rig) {
		pair := "secret" + r.code(r.enroll("alice"))
		p := r.connectTLS(home)
		p.login("alice", "wrong")
		began := time.Now()
		if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
			t.Fatal(got)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		p.hangUp()
	})
}

// Passwords of all kinds arrive at the upstream as they are, by each way to send them.
func TestPasswordsArriveWhole(t *testing.T) {
	name := strings.Repeat("n", 249)
	for _, password := range []string{
		`se"cr\et`, `"`, `\\`, "with a space", "päss wörd €", "{5}", "{5+}", "%*()", "trailing ", " leading",
		strings.Repeat("p", 249), "123456", "pass123456",
	} {
		for _, way := range []string{"literal", "quoted", "PLAIN"} {
			in(t, func(r *rig) {
				r.upstream.password = password
				secret := password + r.code(r.enroll(name))
				p := r.connectTLS(home)
				switch way {
				case "literal":
					p.send("l LOGIN %s {%d+}\r\n%s\r\n", name, len(secret), secret)
				case "quoted":
					p.send("l LOGIN \"%s\" \"%s\"\r\n", name, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(secret))
				case "PLAIN":
					p.send("l AUTHENTICATE PLAIN %s\r\n", base64.StdEncoding.EncodeToString([]byte("\x00"+name+"\x00"+secret)))
				}
				p.want("l OK .*")
				p.hangUp()
			})
		}
	}
}

// A flood behind the login while the upstream thinks is bounded by not reading.
func TestFloodWhileTheUpstreamThinks(t *testing.T) {
	in(t, func(r *rig) {
		r.upstream.script = hang
		r.enroll("alice")
		p := r.connectTLS(home)
		taken := make(chan int)
		go func() {
			n, _ := io.WriteString(p.Conn, "l LOGIN alice secret\r\n"+strings.Repeat("x NOOP\r\n", 1<<20))
			taken <- n
		}()
		synctest.Wait()
		time.Sleep(10 * time.Second) // the upstream is still thinking
		p.raw.Close()
		if n := <-taken; n > 64<<10 {
			t.Errorf("%d octets were taken meanwhile", n)
		}
		p.Close()
	})
}

// While the guard waits for the upstream's word on a literal, the client isn't read either.
func TestFloodBehindALiteral(t *testing.T) {
	in(t, func(r *rig) {
		pair := "secret" + r.code(r.enroll("alice"))
		p := r.connectTLS(home)
		if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
			t.Fatal(got)
		}
		taken := make(chan int)
		go func() {
			// The fake upstream takes the header for a whole command and answers with OK: the
			// literal is dropped; then it is told to IDLE, which it never ends.
			n, _ := io.WriteString(p.Conn, "a APPEND x {3+}\r\nabc\r\nb HANG {9}\r\n"+strings.Repeat("x NOOP\r\n", 1<<20))
			taken <- n
		}()
		p.want(`\* ECHO APPEND x \{3\}`, "a OK done")
		time.Sleep(time.Minute)
		p.raw.Close()
		if n := <-taken; n > 128<<10 {
			t.Errorf("%d octets were taken meanwhile", n)
		}
		p.Close()
	})
}

// Connections that present nothing can be made by the thousand: the log doesn't grow with
// each. Sessions with a login are all in it.
func TestLogOfSilentSessionsIsSampled(t *testing.T) {
	in(t, func(r *rig) {
		for range 1000 {
			r.dial(home, true).hangUp()
		}
		p := r.connectTLS(home)
		p.login("alice", "wrong")
		p.hangUp()
		if n := r.logs.FilterMessage("session without a login").Len(); n < 50 || n > 60 {
			t.Errorf("%d lines for 1,000 silent sessions of one moment", n)
		}
		if n := r.logs.FilterMessage("session").Len(); n != 1 {
			t.Errorf("%d lines for a session with an attempt", n)
		}
	})
}

// No write deadline is left standing in the relay: crypto/tls answers a KeyUpdate from
// within Read (RFC 8446, section 4.6.3), and a write that is too late breaks the session.
func TestNoWriteDeadlineStands(t *testing.T) {
	in(t, func(r *rig) {
		pair := "secret" + r.code(r.enroll("alice"))
		p := r.connectTLS(home)
		if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
			t.Fatal(got)
		}
		none := time.Time{}.UnixNano()
		for range 2 {
			synctest.Wait()
			if r.writeDeadline.Load() != none {
				t.Error("a write deadline stands")
			}
			p.send("x NOOP\r\n")
			p.want(`\* ECHO NOOP`, "x OK done")
		}
		p.hangUp()
	})
}

// A panic in either direction of the relay ends that session, and no other.
func TestPanicInTheRelay(t *testing.T) {
	for _, direction := range []string{"from the client", "from the upstream"} {
		t.Run(direction, func(t *testing.T) {
			in(t, func(r *rig) {
				pair := "secret" + r.code(r.enroll("alice"))
				dial := r.Route("").Dial
				r.Route("").Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
					conn, err := dial(ctx, network, address)
					return &panicConn{Conn: conn, onRead: direction == "from the upstream"}, err
				}
				other := r.connectTLS(home)
				p := r.connectTLS(home)
				if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
					t.Fatal(got)
				}
				go io.WriteString(p.Conn, "x BUG\r\n")
				p.wantEnd()
				other.send("n NOOP\r\n")
				other.want("n OK .*")
				other.hangUp()
				if got := r.logs.FilterMessage("session broken, this is a bug").Len(); got != 1 {
					t.Errorf("%d panics logged", got)
				}
			})
		})
	}
}

// A panicConn panics where it meets the word BUG.
type panicConn struct {
	net.Conn
	onRead bool
}

func (c *panicConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.onRead && strings.Contains(string(p[:n]), "BUG") {
		panic("a bug")
	}
	return n, err
}

func (c *panicConn) Write(p []byte) (int, error) {
	if !c.onRead && strings.Contains(string(p), "BUG") {
		panic("a bug")
	}
	return c.Conn.Write(p)
}

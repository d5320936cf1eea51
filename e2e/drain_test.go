package e2e

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// SIGTERM: nobody new comes in, sessions before login hear BYE, relays go on
// until they end or the deadline comes, and all of it is a success.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, drain string
		end         func(t *testing.T, relayed *conn)
	}{
		{"until the last session ends", "1h", func(t *testing.T, relayed *conn) {
			if r := relayed.do("LOGOUT"); !r.is("OK") {
				t.Errorf("LOGOUT: %s", r.line)
			}
			relayed.ended()
			relayed.Close()
		}},
		{"until the deadline", "3s", func(t *testing.T, relayed *conn) {
			// The proxy adds nothing of its own to the stream.
			if lines := relayed.ended(); len(lines) > 0 {
				t.Errorf("the relayed session got %q", lines)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := startWarden(t, settings{drain: test.drain})
			a := w.enrolled(anyPassword())
			relayed := dialTLS(t, home, w.implicit)
			relayed.mustLogin(a.name, a.withCode(t))
			relayed.holdsMailOf(a)
			secure, plain := dialTLS(t, home, w.implicit), dial(t, home, w.starttls)

			if err := w.proc.signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			for _, c := range []*conn{secure, plain} {
				if lines := c.ended(); len(lines) != 1 || !strings.HasPrefix(lines[0], "* BYE") {
					t.Errorf("a session before login got %q", lines)
				}
			}
			w.refusesConnections()
			if r := relayed.do("NOOP"); !r.is("OK") {
				t.Errorf("NOOP in a relayed session: %s", r.line)
			}
			test.end(t, relayed)
			if status, err := w.proc.wait(); err != nil || status != 0 {
				t.Errorf("ended with status %d, %v", status, err)
			}
		})
	}
}

// refusesConnections waits until nobody listens any more.
func (w *warden) refusesConnections() {
	w.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", w.implicit)
		if err != nil {
			return
		}
		c.Close()
	}
	w.t.Error("still accepts connections while draining")
}

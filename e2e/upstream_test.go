package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

func TestUpstreamTLS(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"starttls", "implicit"} {
		for _, test := range []struct {
			name       string
			ca         *authority
			serverName string
			trusted    bool
		}{
			{"private CA and name", shared.internal, dovecotName, true},
			{"wrong name", shared.internal, "another.internal", false},
			{"wrong CA", shared.stranger, dovecotName, false},
		} {
			t.Run(mode+", "+test.name, func(t *testing.T) {
				t.Parallel()
				w := startWarden(t, settings{tls: mode, ca: test.ca.file, serverName: test.serverName})
				a := w.enrolled(anyPassword())
				c := dialTLS(t, home, w.implicit)
				r := loginQuoted(c, a.name, a.withCode(t))
				if test.trusted {
					if !r.is("OK") {
						t.Fatalf("login: %s", r.line)
					}
					c.holdsMailOf(a)
					return
				}
				if !r.is("NO [UNAVAILABLE]") {
					t.Errorf("login: %s", r.line)
				}
				if r := c.do("NOOP"); !r.is("OK") {
					t.Errorf("NOOP after it: %s", r.line)
				}
				if w.upstream.heardOf(t, a) {
					t.Error("credentials went to an upstream that wasn't verified")
				}
			})
		}
	}
}

// An upstream that is away is nobody's wrong password: the same credentials
// work on the same connection once it is back.
func TestUpstreamAway(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp(shared.dir, "d")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	upstream, err := newDovecot(filepath.Join(dir, "d"), shared.dovecot.owner)
	if err != nil {
		t.Fatal(err)
	}
	w := startWarden(t, settings{upstream: upstream})
	a := w.enrolled(anyPassword())
	c := dialTLS(t, home, w.implicit)
	stored := a.withCode(t)
	if r := loginQuoted(c, a.name, stored); !r.is("NO [UNAVAILABLE]") {
		t.Fatalf("login without an upstream: %s", r.line)
	}
	if err := upstream.start(); err != nil {
		t.Fatal(err)
	}
	defer upstream.stop()
	if r := loginQuoted(c, a.name, stored); !r.is("OK") {
		t.Fatalf("login once it is back: %s", r.line)
	}
	c.holdsMailOf(a)

	// When it goes away, so do its sessions.
	if err := upstream.stop(); err != nil {
		t.Fatal(err)
	}
	c.ended()
	c.Close()
	c = dialTLS(t, home, w.implicit)
	if r := loginQuoted(c, a.name, a.password); !r.is("NO [UNAVAILABLE]") {
		t.Errorf("login after it has gone: %s", r.line)
	}
}

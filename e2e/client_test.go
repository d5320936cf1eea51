package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A client's ways: where a phone is at home, at work, on the road.
const (
	work = "127.0.1.1"
	road = "127.0.2.1"
)

// A tlsClient is one mail program, as far as TLS can tell: it resumes its sessions.
type tlsClient struct{ config *tls.Config }

func newTLSClient(version uint16) tlsClient {
	config := shared.clients.believe()
	config.MinVersion, config.MaxVersion = version, version
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	return tlsClient{config}
}

// dial connects and reads the greeting, and with it, in TLS 1.3, the ticket for the next time.
func (p tlsClient) dial(t *testing.T, from, to string, resumed bool) *conn {
	t.Helper()
	secure := tls.Client(dialTCP(t, from, to), p.config)
	c := newConn(t, secure)
	c.greeting()
	if got := secure.ConnectionState().DidResume; got != resumed {
		t.Fatalf("the TLS session was resumed: %t, want %t", got, resumed)
	}
	return c
}

var tlsVersions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// A grant for a TLS client goes with it to other networks and outlives the server; and ends
// with the sessions under it when it is revoked.
func TestTLSClientGrant(t *testing.T) {
	t.Parallel()
	for _, from := range []string{"tls-client", "both"} {
		for name, version := range tlsVersions {
			t.Run(from+", TLS "+name, func(t *testing.T) {
				t.Parallel()
				w := startWarden(t, settings{grant: from})
				a := w.enrolled(anyPassword())
				phone := newTLSClient(version)
				phone.dial(t, home, w.implicit, false).mustLogin(a.name, a.withCode(t))
				phone.dial(t, work, w.implicit, true).mustLogin(a.name, a.password)
				w.rejects(a, work, a.password, "no-code")
				switch from {
				case "tls-client":
					w.rejects(a, home, a.password, "no-code")
				case "both":
					w.accepts(a, home, a.password)
				}
				// Who else resumes brings another client's ticket.
				thief := newTLSClient(version)
				thief.dial(t, work, w.implicit, false)
				if r := loginQuoted(thief.dial(t, work, w.implicit, true), a.name, a.password); !r.is("NO [AUTHENTICATIONFAILED]") {
					t.Errorf("another TLS client that resumes: %s", r.line)
				}

				w.restart(settings{grant: from})
				live := phone.dial(t, road, w.implicit, true)
				live.mustLogin(a.name, a.password)
				live.holdsMailOf(a)
				if r := loginQuoted(phone.dial(t, road, w.implicit, true), a.name, known.add(anyPassword())); !r.is("NO [AUTHENTICATIONFAILED]") {
					t.Errorf("a wrong password: %s", r.line)
				}
				w.revokesClientGrant(a, live)
				if r := loginQuoted(phone.dial(t, road, w.implicit, true), a.name, a.password); !r.is("NO [AUTHENTICATIONFAILED]") {
					t.Errorf("after it was revoked: %s", r.line)
				}
			})
		}
	}
}

// revokesClientGrant revokes the account's grant for a TLS client, which must end the session.
func (w *warden) revokesClientGrant(a *account, live *conn) {
	w.t.Helper()
	type grant struct{ ID, From, Network string }
	var found []grant
	for _, g := range lines[grant](w, "grant", "list", a.name) {
		if g.From == "tls-client" {
			found = append(found, g)
		}
	}
	if len(found) != 1 || found[0].Network != "127.0.0.0/24" && found[0].Network != "127.0.0.1/32" {
		w.t.Fatalf("the account has %d grants for TLS clients: %+v", len(found), found)
	}
	if table := string(w.command("grant", "list", a.name)); !strings.Contains(table, found[0].ID) || !strings.Contains(table, "one TLS client") {
		w.t.Errorf("grant list says\n%s", table)
	}
	w.refuses([]string{"grant", "revoke", a.name, "nonsense"}, "refused:", "nonsense")
	if r := live.do("NOOP"); !r.is("OK") {
		w.t.Fatalf("NOOP before it is revoked: %s", r.line)
	}
	w.command("grant", "revoke", a.name, found[0].ID)
	live.ended()
	if list := lines[grant](w, "grant", "list", a.name); len(list) > 0 && list[len(list)-1].From == "tls-client" {
		w.t.Errorf("grant list still has %+v", list)
	}
}

// OpenSSL's tickets do too: many mail programs are built on it.
func TestTLSClientGrantWithOpenSSL(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{grant: "tls-client"})
	for _, version := range []string{"tls1_2", "tls1_3"} {
		t.Run(version, func(t *testing.T) {
			a := w.enrolled(anyPassword())
			ticket := filepath.Join(t.TempDir(), "ticket")
			connect := func(from, password string, flags ...string) string {
				t.Helper()
				return w.openssl(t, from, "a LOGIN "+a.name+" "+password+"\nb LOGOUT\n", append(flags, "-"+version)...)
			}
			if got := connect(home, a.withCode(t), "-sess_out", ticket); !strings.Contains(got, "a OK ") {
				t.Fatalf("with a code: %s", got)
			}
			if got := connect(work, a.password); !strings.Contains(got, "a NO [AUTHENTICATIONFAILED]") {
				t.Errorf("not resumed: %s", got)
			}
			for range 2 { // the second time with the ticket of the first
				if got := connect(work, a.password, "-sess_in", ticket, "-sess_out", ticket); !strings.Contains(got, "a OK ") {
					t.Errorf("resumed: %s", got)
				}
			}
			w.kill()
			w.start()
			if got := connect(road, a.password, "-sess_in", ticket); !strings.Contains(got, "a OK ") {
				t.Errorf("resumed after a restart: %s", got)
			}
		})
	}
}

// openssl sends the lines to the implicit TLS port and returns what came.
func (w *warden) openssl(t *testing.T, from, lines string, flags ...string) string {
	t.Helper()
	_, number, err := net.SplitHostPort(w.implicit)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("openssl", append([]string{
		"s_client", "-quiet", "-crlf", "-verify_quiet", "-verify_return_error", "-CAfile", shared.clients.file,
		"-servername", "localhost", "-connect", fmt.Sprintf("127.0.0.1:%s", number), "-bind", from + ":0",
	}, flags...)...)
	cmd.Stdin = strings.NewReader(lines)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output() // its status says how the connection ended
	if len(out) == 0 {
		t.Fatalf("openssl s_client: %v: %s", err, errs.String())
	}
	return string(out)
}

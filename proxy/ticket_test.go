package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imapwarden/auth"
)

var ticketKey, nextTicketKey = [32]byte{1}, [32]byte{2}

// forClients has a code open the way for TLS clients.
func (r *rig) forClients(from string) {
	r.Auth.Grant.From = from
	r.Auth.Grant.ClientAbsolute, r.Auth.Grant.ClientIdle = 30*24*time.Hour, 7*24*time.Hour
	r.TLS.SetSessionTicketKeys([][32]byte{ticketKey})
}

// A cache is what a TLS client keeps of its sessions: the newest.
type cache struct {
	mu     sync.Mutex
	newest *tls.ClientSessionState
}

func (c *cache) Get(string) (*tls.ClientSessionState, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.newest, c.newest != nil
}

func (c *cache) Put(_ string, s *tls.ClientSessionState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s != nil {
		c.newest = s
	}
}

// client is a TLS client that resumes its sessions.
func client(version uint16) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, ServerName: "mail.example.org", MinVersion: version, MaxVersion: version,
		ClientSessionCache: new(cache),
	}
}

func forTLSVersions(t *testing.T, f func(r *rig, version uint16)) {
	t.Helper()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			in(t, func(r *rig) { f(r, version) })
		})
	}
}

// loginAs signs in as that TLS client and returns whether it resumed a session and was let in.
func (r *rig) loginAs(client *tls.Config, from, password string) (resumed, ok bool) {
	r.t.Helper()
	p := r.connectAs(from, client)
	defer p.Close()
	resumed = p.Conn.(*tls.Conn).ConnectionState().DidResume
	return resumed, strings.HasPrefix(p.login("alice", password), "l OK")
}

// roam is where a phone goes.
func roam(i int) string { return fmt.Sprintf("203.0.%d.1:4000", 100+i) }

// A code opens the way for the TLS client that brought it, wherever that goes, as long as it
// resumes its sessions; and for no other.
func TestTLSClientGrant(t *testing.T) {
	forTLSVersions(t, func(r *rig, version uint16) {
		r.forClients(auth.FromClient)
		secret := r.enroll("alice")
		phone := client(version)
		if _, ok := r.loginAs(phone, home, "secret"+r.code(secret)); !ok {
			r.t.Fatal("password and code were refused")
		}
		for i := range 5 {
			time.Sleep(20 * time.Hour)
			if resumed, ok := r.loginAs(phone, roam(i), "secret"); !resumed || !ok {
				r.t.Errorf("station %d: resumed %v, let in %v", i, resumed, ok)
			}
		}
		if _, ok := r.loginAs(phone, roam(9), "wrong"); ok {
			r.t.Error("a wrong password came in by a grant")
		}
		for _, from := range []string{home, roam(0)} {
			other := client(version)
			for range 2 { // the second time resumed
				if _, ok := r.loginAs(other, from, "secret"); ok {
					r.t.Errorf("another client comes in from %s", from)
				}
			}
			if _, ok := r.loginAs(&tls.Config{InsecureSkipVerify: true}, from, "secret"); ok {
				r.t.Errorf("a client without tickets comes in from %s", from)
			}
		}
		if got := r.lastEvent(); got.Reason != "no-code" {
			r.t.Errorf("audit: %+v", got)
		}
	})
}

// Ticket keys go over from one to the next without a loss, and with its last key a ticket is
// worth nothing.
func TestTLSClientGrantAndTicketKeys(t *testing.T) {
	forTLSVersions(t, func(r *rig, version uint16) {
		r.forClients(auth.FromClient)
		secret := r.enroll("alice")
		phone := client(version)
		r.loginAs(phone, home, "secret"+r.code(secret))
		r.TLS.SetSessionTicketKeys([][32]byte{nextTicketKey, ticketKey})
		if resumed, ok := r.loginAs(phone, roam(1), "secret"); !resumed || !ok {
			r.t.Errorf("with the key before: resumed %v, let in %v", resumed, ok)
		}
		r.TLS.SetSessionTicketKeys([][32]byte{nextTicketKey})
		if resumed, ok := r.loginAs(phone, roam(2), "secret"); !resumed || !ok {
			r.t.Errorf("with the new key: resumed %v, let in %v", resumed, ok)
		}
		r.TLS.SetSessionTicketKeys([][32]byte{{3}})
		for i := range 2 {
			if resumed, ok := r.loginAs(phone, roam(3), "secret"); resumed != (i > 0) || ok {
				r.t.Errorf("without its key: resumed %v, let in %v", resumed, ok)
			}
		}
	})
}

// The setting says what a code opens: the network, the TLS client, or both.
func TestGrantFrom(t *testing.T) {
	for _, test := range []struct {
		from          string
		same, network bool // the same client from elsewhere, another client from the same network
	}{
		{auth.FromNetwork, false, true},
		{auth.FromClient, true, false},
		{auth.FromBoth, true, true},
		{"off", false, false},
	} {
		t.Run(test.from, func(t *testing.T) {
			forTLSVersions(t, func(r *rig, version uint16) {
				r.forClients(test.from)
				phone := client(version)
				if _, ok := r.loginAs(phone, home, "secret"+r.code(r.enroll("alice"))); !ok {
					r.t.Fatal("password and code were refused")
				}
				if _, ok := r.loginAs(phone, elsewhere, "secret"); ok != test.same {
					r.t.Errorf("the same client from elsewhere: %v", ok)
				}
				if _, ok := r.loginAs(client(version), neighbour, "secret"); ok != test.network {
					r.t.Errorf("another client from the same network: %v", ok)
				}
			})
		})
	}
}

// A mail program opens its connections at once, each a TLS client of its own, and any of them may
// be the one that is resumed later.
func TestTLSClientGrantsOfParallelLogins(t *testing.T) {
	forTLSVersions(t, func(r *rig, version uint16) {
		r.forClients(auth.FromClient)
		pair := "secret" + r.code(r.enroll("alice"))
		var clients []*tls.Config
		var wg sync.WaitGroup
		for range 8 {
			c := client(version)
			clients = append(clients, c)
			wg.Go(func() {
				if _, ok := r.loginAs(c, home, pair); !ok {
					r.t.Error("one of them is refused")
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Hour)
		for i, c := range clients {
			if resumed, ok := r.loginAs(c, roam(i), "secret"); !resumed || !ok {
				r.t.Errorf("client %d: resumed %v, let in %v", i, resumed, ok)
			}
		}
	})
}

// A ticket of TLS 1.2 goes over the wire in the clear. Who copies it doesn't know the session's
// secret: the handshake fails, or becomes a whole one, and then the ticket says nothing.
func TestCopiedTicket(t *testing.T) {
	for _, test := range []struct {
		name      string
		version   uint16
		suite     uint16 // of the thief's own session; 0: the same as the phone's
		handshake bool   // it comes to an end
	}{
		{"TLS 1.3", tls.VersionTLS13, 0, false},
		{"TLS 1.2", tls.VersionTLS12, 0, false},
		{"TLS 1.2, another cipher suite", tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			in(t, func(r *rig) {
				r.forClients(auth.FromClient)
				phone, thief := client(test.version), client(test.version)
				if test.suite != 0 {
					phone.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
					thief.CipherSuites = []uint16{test.suite}
				}
				if _, ok := r.loginAs(phone, home, "secret"+r.code(r.enroll("alice"))); !ok {
					t.Fatal("password and code were refused")
				}
				r.connectAs(elsewhere, thief).hangUp()
				thief.ClientSessionCache.(*cache).newest = forged(t, phone, thief)

				p := r.dial(elsewhere, false)
				conn := tls.Client(p.raw, thief)
				if err := conn.Handshake(); (err == nil) != test.handshake {
					t.Errorf("handshake: %v", err)
				} else if test.handshake {
					p = &peer{Conn: conn, t: t, raw: p.raw, r: bufio.NewReader(conn)}
					p.want(`\* OK .*`)
					if got := p.login("alice", "secret"); got != failed {
						t.Errorf("the thief: %s", got)
					}
				}
				p.hangUp()
				if _, ok := r.loginAs(phone, elsewhere, "secret"); !ok {
					t.Error("the phone isn't let in any more")
				}
			})
		})
	}
}

// forged is the phone's ticket beside the secret of the thief's own session.
func forged(t *testing.T, phone, thief *tls.Config) *tls.ClientSessionState {
	t.Helper()
	ticket, _, err := phone.ClientSessionCache.(*cache).newest.ResumptionState()
	if err != nil {
		t.Fatal(err)
	}
	_, own, err := thief.ClientSessionCache.(*cache).newest.ResumptionState()
	if err != nil {
		t.Fatal(err)
	}
	state, err := tls.NewResumptionState(ticket, own)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// What a ticket says counts only where its session is resumed.
func TestTLSClientIsKnown(t *testing.T) {
	mine, theirs := []byte("0123456789abcdef"), []byte("fedcba9876543210")
	for _, test := range []struct {
		name    string
		client  tlsClient
		resumed bool
		want    []byte
	}{
		{"no tickets", tlsClient{}, false, nil},
		{"resumed without an id", tlsClient{}, true, nil},
		{"resumed, no new ticket", tlsClient{brought: mine}, true, mine},
		{"resumed, a new ticket", tlsClient{brought: mine, id: mine}, true, mine},
		{"a ticket that wasn't resumed", tlsClient{brought: theirs}, false, nil},
		{"and a new one", tlsClient{brought: theirs, id: mine}, false, mine},
	} {
		if got := test.client.known(test.resumed); !bytes.Equal(got, test.want) {
			t.Errorf("%s: %q", test.name, got)
		}
	}
}

// A ticket from before grants were for TLS clients has no id; its client gets one when it comes
// back, and a code then opens the way for it.
func TestTicketWithoutID(t *testing.T) {
	forTLSVersions(t, func(r *rig, version uint16) {
		r.forClients(auth.FromNetwork)
		secret := r.enroll("alice")
		phone := client(version)
		r.connectAs(home, phone).hangUp()
		r.Auth.Grant.From = auth.FromClient
		resumed, ok := r.loginAs(phone, home, "secret"+r.code(secret))
		if !resumed || !ok {
			r.t.Fatalf("resumed %v, let in %v", resumed, ok)
		}
		if resumed, ok := r.loginAs(phone, elsewhere, "secret"); !resumed || !ok {
			r.t.Errorf("resumed %v, let in %v", resumed, ok)
		}
	})
}

// A client keeps its id through STARTTLS as well.
func TestTLSClientGrantWithStartTLS(t *testing.T) {
	in(t, func(r *rig) {
		r.forClients(auth.FromClient)
		pair := "secret" + r.code(r.enroll("alice"))
		phone := client(tls.VersionTLS13)
		for _, login := range []struct{ from, password string }{{home, pair}, {elsewhere, "secret"}, {roam(1), "secret"}} {
			p := r.connect(login.from)
			p.send("s STARTTLS\r\n")
			p.want("s OK .*")
			p.secure(phone)
			p.enter("alice", login.password)
			p.hangUp()
		}
	})
}

// On real sockets, where it all comes in pieces.
func TestTLSClientGrantOnSockets(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		r := newRig(t)
		r.forClients(auth.FromClient)
		r.onSockets(func(r *rig) {
			phone := client(version)
			for i, password := range []string{"secret" + r.code(r.enroll("alice")), "secret", "secret"} {
				p := r.connectAs(home, phone)
				if resumed := p.Conn.(*tls.Conn).ConnectionState().DidResume; resumed != (i > 0) {
					t.Errorf("%s, login %d: resumed %v", tls.VersionName(version), i, resumed)
				}
				p.enter("alice", password)
				p.Close()
			}
		})
	}
}

// Each client that comes without a ticket gets an id of its own, though one recognizer
// serves their handshakes one after the other.
func TestTicketsDiffer(t *testing.T) {
	in(t, func(r *rig) {
		r.forClients(auth.FromClient)
		recognizer := newRecognizer(r.TLS)
		ids := map[string]bool{}
		for range 5 {
			server, conn := net.Pipe()
			recognizer.client = new(tlsClient)
			done := make(chan struct{})
			go func() {
				defer close(done)
				tls.Server(server, recognizer.config).HandshakeContext(context.Background())
			}()
			if err := tls.Client(conn, client(tls.VersionTLS12)).Handshake(); err != nil {
				t.Fatal(err)
			}
			<-done
			ids[string(recognizer.client.known(false))] = true
			conn.Close()
			server.Close()
			synctest.Wait()
		}
		if len(ids) != 5 || ids[""] {
			t.Errorf("five clients have %d ids", len(ids))
		}
	})
}

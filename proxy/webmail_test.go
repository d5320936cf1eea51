package proxy

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap/zapcore"

	"imapwarden/auth"
	"imapwarden/policy"
)

// webmailHost is where a webmail connects from, whichever of its users is at it.
const webmailHost = "192.0.2.80:5000"

// webmail makes webmailHost one.
func (r *rig) webmail() {
	r.Webmail = []netip.Prefix{netip.MustParsePrefix("192.0.2.80/32")}
}

// comesFrom sends ID with where the user is, as webmails do.
func (p *peer) comesFrom(addr, port string) {
	p.t.Helper()
	p.send("i ID (\"name\" \"Roundcube\" \"X-Originating-IP\" %q \"x-originating-port\" %q)\r\n", addr, port)
	p.want(`\* ID .*`, "i OK .*")
}

// surf signs in from webmailHost for a user there, hangs up, and returns what the tagged line says.
func (r *rig) surf(user, password, addr string) string {
	r.t.Helper()
	p := r.connectTLS(webmailHost)
	defer p.hangUp()
	p.comesFrom(addr, "4000")
	return p.login(user, password)
}

// The address that a webmail host names is the client's: in the audit, in the list of sessions, in
// the log, where the host's own stands beside it, and for the upstream.
func TestWebmail(t *testing.T) {
	for said, want := range map[[2]string][2]string{
		{"198.51.100.7", "4000"}:        {"198.51.100.7", "4000"},
		{"::ffff:198.51.100.7", "4000"}: {"198.51.100.7", "4000"},
		{"2001:db8::7", "65535"}:        {"2001:db8::7", "65535"},
		{"198.51.100.7", ""}:            {"198.51.100.7", "0"},
		{"198.51.100.7", "imap"}:        {"198.51.100.7", "0"},
		{"198.51.100.7", "65536"}:       {"198.51.100.7", "0"},
	} {
		in(t, func(r *rig) {
			r.webmail()
			p := r.connectTLS(webmailHost)
			p.comesFrom(said[0], said[1])
			p.enter("alice", "secret"+r.code(r.enroll("alice")))
			if got := r.lastEvent().Source; got != want[0] {
				t.Errorf("%q: the audit says %s", said, got)
			}
			if got := r.Sessions(); len(got) != 1 || got[0].Source.String() != want[0] {
				t.Errorf("%q: sessions: %v", said, got)
			}
			p.hangUp()
			line := r.sessionLines()[0].ContextMap()
			if line["source"] != want[0] || line["peer"] != "192.0.2.80" {
				t.Errorf("%q: logged: %v", said, line)
			}
			id := r.upstream.commands[0]
			if !strings.Contains(id, fmt.Sprintf(`"x-originating-ip" %q "x-originating-port" %q`, want[0], want[1])) || strings.Contains(id, "192.0.2.80") {
				t.Errorf("%q: the upstream was told %s", said, id)
			}
		})
	}
}

// What can't be a client's address is no word: the client stays where the host is. It is
// logged for who looks for it.
func TestWebmailMalformed(t *testing.T) {
	for _, said := range []string{"", "here", "198.51.100", "198.51.100.7:4000", "fe80::1%eth0", "0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1", strings.Repeat("1", 1000)} {
		in(t, func(r *rig) {
			r.webmail()
			p := r.connectTLS(webmailHost)
			p.comesFrom(said, "4000")
			p.enter("alice", "secret"+r.code(r.enroll("alice")))
			p.hangUp()
			if got := r.lastEvent().Source; got != "192.0.2.80" {
				t.Errorf("%q: the audit says %s", said, got)
			}
			if line := r.sessionLines()[0].ContextMap(); line["peer"] != nil {
				t.Errorf("%q: logged: %v", said, line)
			}
			logged := r.logs.FilterMessage("no usable address from a webmail host").All()
			if len(logged) != 1 || logged[0].Level != zapcore.DebugLevel {
				t.Errorf("%q: logged: %v", said, logged)
			}
		})
	}
}

// Nobody else is believed.
func TestWebmailIsNobodyElse(t *testing.T) {
	in(t, func(r *rig) {
		r.webmail()
		p := r.connectTLS("192.0.2.81:5000")
		p.comesFrom("203.0.113.66", "4000")
		p.enter("alice", "secret"+r.code(r.enroll("alice")))
		p.hangUp()
		if got := r.lastEvent().Source; got != "192.0.2.81" {
			t.Errorf("the audit says %s", got)
		}
		if all := strings.Join(r.upstream.commands, "\n"); strings.Contains(all, "203.0.113.66") {
			t.Errorf("the upstream was told %s", all)
		}
	})
}

// The newest word before the first attempt counts, and none after it.
func TestWebmailBeforeTheFirstAttempt(t *testing.T) {
	in(t, func(r *rig) {
		r.webmail()
		code := r.code(r.enroll("alice"))
		p := r.connectTLS(webmailHost)
		p.comesFrom("203.0.113.1", "4000")
		p.comesFrom("203.0.113.2", "4000")
		p.login("alice", "wrong")
		p.comesFrom("203.0.113.3", "4000")
		p.enter("alice", "secret"+code)
		p.comesFrom("203.0.113.4", "4000")
		p.hangUp()
		var sources []string
		for _, e := range r.audit() {
			sources = append(sources, e.Source)
		}
		if got := slices.Compact(sources); !slices.Equal(got, []string{"203.0.113.2"}) {
			t.Errorf("the audit says %q", got)
		}
		if all := strings.Join(r.upstream.commands, "\n"); strings.Contains(all, "203.0.113.4") {
			t.Errorf("the upstream was told %s", all)
		}
	})
	in(t, func(r *rig) { // it stays where the first attempt found it, also without a word
		r.webmail()
		code := r.code(r.enroll("alice"))
		p := r.connectTLS(webmailHost)
		p.login("alice", "wrong")
		p.comesFrom("203.0.113.3", "4000")
		p.enter("alice", "secret"+code)
		p.hangUp()
		if got := r.lastEvent().Source; got != "192.0.2.80" {
			t.Errorf("the audit says %s", got)
		}
	})
}

// Before TLS anybody on the way could have said it.
func TestWebmailBeforeTLS(t *testing.T) {
	for _, again := range []bool{false, true} {
		in(t, func(r *rig) {
			r.webmail()
			p := r.connect(webmailHost)
			p.comesFrom("203.0.113.66", "4000")
			p.send("s STARTTLS\r\n")
			p.want("s OK .*")
			p.secure(&tls.Config{InsecureSkipVerify: true})
			want := "192.0.2.80"
			if again {
				p.comesFrom("198.51.100.7", "4000")
				want = "198.51.100.7"
			}
			p.enter("alice", "secret"+r.code(r.enroll("alice")))
			p.hangUp()
			if got := r.lastEvent().Source; got != want {
				t.Errorf("said again: %v: the audit says %s", again, got)
			}
		})
	}
}

// Grants are the user's network's, not the host's.
func TestWebmailGrants(t *testing.T) {
	in(t, func(r *rig) {
		r.webmail()
		r.surf("alice", "secret"+r.code(r.enroll("alice")), "198.51.100.7")
		if got := r.surf("alice", "secret", "198.51.100.8"); !strings.HasPrefix(got, "l OK") {
			t.Errorf("from the same network: %s", got)
		}
		if got := r.surf("alice", "secret", "203.0.113.9"); !strings.HasPrefix(got, "l NO") {
			t.Errorf("from another one: %s", got)
		}
		if got := r.answer(webmailHost, "alice", "secret"); !strings.HasPrefix(got, "l NO") {
			t.Errorf("from the webmail host itself: %s", got)
		}
		if got := r.answer("198.51.100.9:4000", "alice", "secret"); !strings.HasPrefix(got, "l OK") {
			t.Errorf("from that network without the webmail: %s", got)
		}
	})
}

// One user's guesses don't count against the others.
func TestWebmailLimits(t *testing.T) {
	in(t, func(r *rig) {
		r.webmail()
		r.Policy = &policy.Gate{Limits: policy.Limits{AddressPerMinute: 2}}
		code := r.code(r.enroll("alice"))
		for i := range 3 {
			r.surf("bob", fmt.Sprintf("guess %d", i), "203.0.113.66")
		}
		if got := r.surf("bob", "another", "203.0.113.66"); got != readsLimited {
			t.Errorf("the guesser reads %s", got)
		}
		if got := r.surf("alice", "secret"+code, "198.51.100.7"); !strings.HasPrefix(got, "l OK") {
			t.Errorf("another user of the webmail reads %s", got)
		}
	})
}

// The place before login is the host's, whatever it says of its users.
func TestWebmailConnections(t *testing.T) {
	in(t, func(r *rig) {
		r.webmail()
		r.Policy = &policy.Gate{Limits: policy.Limits{ConnectionsBeforeLogin: 2}}
		for i := range 2 {
			p := r.connectTLS(webmailHost)
			defer p.Close()
			p.comesFrom(fmt.Sprintf("198.51.100.%d", i), "4000")
		}
		began := time.Now()
		r.dial(webmailHost, false).wantEnd()
		if took := time.Since(began); took > 0 {
			t.Errorf("the third connection had a place for %v", took)
		}
		r.connectTLS("198.51.100.1:4000").hangUp()
	})
}

// All users of a webmail share its TLS sessions: no code of one opens the way for another.
func TestWebmailTLSClient(t *testing.T) {
	forTLSVersions(t, func(r *rig, version uint16) {
		r.webmail()
		r.forClients(auth.FromClient)
		secret := r.enroll("alice")
		shared := client(version)
		if _, ok := r.loginAs(shared, webmailHost, "secret"+r.code(secret)); !ok {
			r.t.Fatal("password and code were refused")
		}
		if resumed, ok := r.loginAs(shared, webmailHost, "secret"); !resumed || ok {
			r.t.Errorf("on the webmail's next connection: resumed %v, let in %v", resumed, ok)
		}
		if resumed, ok := r.loginAs(shared, home, "secret"); !resumed || ok {
			r.t.Errorf("with its ticket from elsewhere: resumed %v, let in %v", resumed, ok)
		}
	})
	forTLSVersions(t, func(r *rig, version uint16) { // nor does one that was a phone's before
		r.webmail()
		r.forClients(auth.FromClient)
		phone := client(version)
		if _, ok := r.loginAs(phone, home, "secret"+r.code(r.enroll("alice"))); !ok {
			r.t.Fatal("password and code were refused")
		}
		if resumed, ok := r.loginAs(phone, webmailHost, "secret"); !resumed || ok {
			r.t.Errorf("a phone's ticket at the webmail: resumed %v, let in %v", resumed, ok)
		}
	})
}

// Behind a load balancer the peer is whom its PROXY header names.
func TestWebmailBehindProxy(t *testing.T) {
	for peer, want := range map[string]string{webmailHost: "203.0.113.66", home: "198.51.100.7"} {
		in(t, func(r *rig) {
			r.trusted = trusted
			r.Webmail = []netip.Prefix{netip.MustParsePrefix("192.0.2.80/32"), trusted[0]} // the balancer's own address says nothing
			code := r.code(r.enroll("alice"))
			p := r.dial(balancer, false)
			p.send("%s", header(t, 2, peer))
			p.secure(&tls.Config{InsecureSkipVerify: true})
			p.want(`\* OK .*`)
			p.comesFrom("203.0.113.66", "4000")
			p.enter("alice", "secret"+code)
			p.hangUp()
			if got := r.lastEvent().Source; got != want {
				t.Errorf("from %s: the audit says %s", peer, got)
			}
			synctest.Wait()
			if line := r.sessionLines()[0].ContextMap(); peer == webmailHost && line["peer"] != "192.0.2.80" {
				t.Errorf("from %s: logged: %v", peer, line)
			}
		})
	}
}

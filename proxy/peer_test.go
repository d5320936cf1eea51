package proxy

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pires/go-proxyproto"
)

const balancer = "10.0.0.5:777"

var trusted = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}

// header is a PROXY header in which a proxy says where its client is.
func header(t *testing.T, version byte, client string) string {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(mustAddr(client)), net.TCPAddrFromAddrPort(mustAddr("192.0.2.1:993")))
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A trusted proxy's header is believed, on both listeners: by the upstream, by limits, by
// grants, and in the audit.
func TestProxyHeader(t *testing.T) {
	for _, version := range []byte{1, 2} {
		for _, startTLS := range []bool{false, true} {
			in(t, func(r *rig) {
				r.trusted = trusted
				pair := "secret" + r.code(r.enroll("alice"))
				p := r.dial(balancer, startTLS)
				p.send("%s", header(t, version, home))
				if startTLS {
					p.want(`\* OK .*`)
					p.send("s STARTTLS\r\n")
					p.want("s OK .*")
				}
				p.secure(&tls.Config{InsecureSkipVerify: true})
				if !startTLS {
					p.want(`\* OK .*`)
				}
				if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
					t.Fatal(got)
				}
				p.hangUp()
				if id := r.upstream.commands[0]; !strings.Contains(id, `"x-originating-ip" "198.51.100.7"`) || !strings.Contains(id, `"x-connected-ip" "192.0.2.1"`) {
					t.Errorf("the upstream was told %s", id)
				}
				if got := r.sessionLines()[0].ContextMap()["source"]; got != "198.51.100.7" {
					t.Errorf("logged source: %v", got)
				}
			})
		}
	}
}

func TestProxyHeaderWithCommandsBehind(t *testing.T) {
	in(t, func(r *rig) {
		r.trusted = trusted
		p := r.dial(balancer, true)
		p.send("%sa NOOP\r\n", header(t, 1, home))
		p.want(`\* OK .*`, "a OK .*")
		p.Close()
	})
}

// A proxy's own health check has no client: it is the client.
func TestProxyHeaderLocal(t *testing.T) {
	in(t, func(r *rig) {
		r.trusted = trusted
		p := r.dial(balancer, true)
		b, err := (&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}).Format()
		if err != nil {
			t.Fatal(err)
		}
		p.send("%s", b)
		p.want(`\* OK .*`)
		p.hangUp()
		if got := r.sessionLines()[0].ContextMap()["source"]; got != "10.0.0.5" {
			t.Errorf("logged source: %v", got)
		}
	})
}

// PROXY header none from a trusted peer within 3 s, a broken one: close, logged.
func TestProxyHeaderMissing(t *testing.T) {
	for name, text := range map[string]string{
		"none":                  "",
		"half":                  "PROXY TCP4 198.51",
		"broken":                "PROXY TCP4 300.1.1.1 10.0.0.1 1 2\r\n",
		"endless":               "PROXY TCP4 " + strings.Repeat("1", 4000),
		"a command instead":     "a NOOP\r\n",
		"a ClientHello instead": "\x16\x03\x01\x02\x00\x01",
		"v2, unknown family":    "\r\n\r\n\x00\r\nQUIT\n\x21\x44\x00\x00",
		"v2, a Unix socket":     "\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8" + strings.Repeat("x", 216),
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(r *rig) {
				r.trusted = trusted
				p := r.dial(balancer, true)
				began := time.Now()
				p.sendAll(text)
				p.wantEnd()
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("closed after %v", took)
				}
				synctest.Wait()
				if len(r.logs.FilterMessage("no usable PROXY header from a trusted proxy").All()) != 1 {
					t.Error("not logged")
				}
			})
		})
	}
}

// PROXY header from an untrusted peer: close, logged. It is never believed.
func TestProxyHeaderFromUntrustedPeer(t *testing.T) {
	in(t, func(r *rig) {
		r.trusted = trusted
		p := r.dial(elsewhere, true)
		p.want(`\* OK .*`)
		p.send("PROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\n")
		p.wantEnd()
		synctest.Wait()
		line := r.sessionLines()[0].ContextMap()
		if line["source"] != "203.0.113.9" || line["end"] != string(endProxyHeader) {
			t.Errorf("logged: %v", line)
		}
	})
	in(t, func(r *rig) {
		r.trusted = trusted
		p := r.dial(elsewhere, false)
		p.sendAll("PROXY TCP4 198.51.100.7 192.0.2.1 1 2\r\n")
		p.wantEnd()
	})
}

// PROXY v2 out: the header is the first that the upstream gets, before TLS too.
func TestProxyHeaderToUpstream(t *testing.T) {
	in(t, func(r *rig) {
		pair := "secret" + r.code(r.enroll("alice"))
		up := r.Route("")
		up.Forward = ForwardProxy
		var got *proxyproto.Header
		r.upstream.script = func(conn net.Conn) {
			in := bufio.NewReader(conn)
			var err error
			if got, err = proxyproto.Read(in); err != nil {
				t.Error(err)
			}
			r.upstream.serve(&preread{Conn: conn})
		}
		p := r.connectTLS(home)
		if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
			t.Fatal(got)
		}
		p.hangUp()
		if got.SourceAddr.String() != home || got.DestinationAddr.String() != "192.0.2.1:993" {
			t.Errorf("the header says %v to %v", got.SourceAddr, got.DestinationAddr)
		}
		if id := strings.Join(r.upstream.commands, "\n"); strings.Contains(id, "x-originating") {
			t.Errorf("the address was sent twice: %s", id)
		}
	})
}

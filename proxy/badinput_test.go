package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The rows of PROTOCOL.md, "Bad input, before login". Each is named by its row, runs on
// both listeners, through pipes and through real sockets, and leaves a server that serves a
// good login and keeps nothing.

// A badRow is one row, or a part of one, as a conversation after the greeting.
type badRow struct {
	name   string
	talk   func(p *peer)
	logins int // attempts that reach the upstream
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// says sends text and wants answers to it.
func says(text string, answers ...string) func(p *peer) {
	return func(p *peer) {
		p.t.Helper()
		p.send("%s", text)
		p.want(answers...)
	}
}

// ends is says, and then the end of the connection.
func ends(text string, answers ...string) func(p *peer) {
	return func(p *peer) {
		p.t.Helper()
		p.sendAll(text)
		p.want(answers...)
		p.wantEnd()
	}
}

const (
	bad      = "a BAD .*"
	starBad  = `\* BAD .*`
	bye      = `\* BYE .*`
	no       = `a NO \[AUTHENTICATIONFAILED\] .*`
	noTLS    = `a NO \[PRIVACYREQUIRED\] .*`
	stillOK  = "z OK .*"
	stillAsk = "z NOOP\r\n"
)

var beforeTLS = []badRow{
	{name: "LOGIN on 143 without TLS", talk: says("a LOGIN alice secret\r\n", noTLS)},
	{name: "AUTHENTICATE with initial response", talk: says("a AUTHENTICATE PLAIN "+encode("\x00alice\x00secret")+"\r\n", noTLS)},
	{name: "AUTHENTICATE without initial response", talk: says("a AUTHENTICATE PLAIN\r\n"+stillAsk, noTLS, stillOK)},
	{name: "LOGIN with a literal", talk: says("a LOGIN {5}\r\n"+stillAsk, noTLS, stillOK)},
	{name: "LOGIN with a non-synchronizing literal, swallowed", talk: says("a LOGIN {8+}\r\nb NOOP\r\n {8+}\r\nc NOOP\r\n\r\n"+stillAsk, noTLS, stillOK)},
	{name: "STARTTLS with NOOP in the same segment", talk: ends("a STARTTLS\r\nb NOOP\r\n", "a OK .*")},
	{name: "STARTTLS with LOGIN in the same segment", talk: ends("a STARTTLS\r\nb LOGIN alice secret\r\n", "a OK .*")},
	{name: "plaintext after the STARTTLS OK", talk: func(p *peer) {
		p.send("a STARTTLS\r\n")
		p.want("a OK .*")
		ends("b NOOP\r\nc LOGIN alice secret\r\n")(p)
	}},
	{name: "STARTTLS with arguments", talk: says("a STARTTLS now\r\n", bad)},
	{name: "a ClientHello on 143", talk: func(p *peer) {
		// The record's first line end is octets away; what matters is that nothing of it comes back.
		p.sendAll("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\xa5", 100) + "\r\n")
		p.want(starBad)
	}},
	{name: "PROXY header where none is configured", talk: says("PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", "PROXY BAD .*")},
}

var overTLS = []badRow{
	{name: "STARTTLS inside TLS", talk: says("a STARTTLS\r\n", bad)},
	{name: "empty line", talk: says("\r\n"+stillAsk, starBad, stillOK)},
	{name: "no tag", talk: says(" NOOP\r\n", starBad)},
	{name: "plus as tag", talk: says("+ NOOP\r\n", starBad)},
	{name: "star as tag", talk: says("* NOOP\r\n", starBad)},
	{name: "8-bit tag", talk: says("\xe4 NOOP\r\n", starBad)},
	{name: "over-long tag", talk: says(strings.Repeat("t", 65)+" NOOP\r\n", starBad)},
	{name: "tag only", talk: says("a\r\n", bad)},
	{name: "NUL", talk: says("a NO\x00OP\r\n", bad)},
	{name: "bare CR", talk: says("a NOOP\rx\r\n", bad)},
	{name: "bare LF", talk: says("a NOOP\nz NOOP\n", "a OK .*", stillOK)},
	{name: "64 KiB without CRLF", talk: ends(strings.Repeat("x", 64<<10+1), bye)},
	{name: "1 MiB ID", talk: ends("a ID (\"name\" {1048576+}\r\n"+strings.Repeat("x", 100<<10), bye)},
	{name: "1 MiB of ID pairs", talk: ends("a ID ("+strings.Repeat(`"name" "`+strings.Repeat("v", 1000)+`" `, 1000), bye)},
	{name: "the largest ID", talk: says("a ID ("+strings.TrimSpace(strings.Repeat(`"`+strings.Repeat("n", 30)+`" "`+strings.Repeat("v", 1024)+`" `, 30))+")\r\n",
		`\* ID .*`, "a OK .*")},
	{name: "one byte at a time", logins: 1, talk: func(p *peer) {
		for _, c := range []byte("a LOGIN bob {5+}\r\nwrong\r\n") {
			p.send("%c", c)
		}
		p.want(no)
	}},
	{name: "three bad commands", talk: ends("a FOO\r\na BAR\r\na BAZ\r\n", bad, bad, bad, bye)},
	{name: "an HTTP verb", talk: ends("GET / HTTP/1.1\r\nHost: mail.example.org\r\n\r\n", bye)},
	{name: "an HTTP POST with commands in its body", talk: ends("POST / HTTP/1.1\r\nHost: x\r\n\r\na LOGIN alice secret\r\n", bye)},
	{name: "SMTP EHLO", talk: ends("EHLO example.org\r\n", bye)},
	{name: "TCP end in mid-command", talk: func(p *peer) { p.send("a LOGIN bob wro"); p.Close() }},
	{name: "half-close", logins: 1, talk: func(p *peer) {
		p.send("a LOGIN bob wrong\r\n")
		if c, ok := p.Conn.(*tls.Conn); ok && p.raw.LocalAddr().Network() == "tcp" {
			c.CloseWrite()
		}
		p.want(no)
	}},
	{name: "{4294967296}", talk: says("a LOGIN {4294967296}\r\n"+stillAsk, bad, stillOK)},
	{name: "{2^64}", talk: says("a LOGIN {18446744073709551616}\r\n"+stillAsk, bad, stillOK)},
	{name: "{1048576}", talk: says("a LOGIN {1048576}\r\n"+stillAsk, bad, stillOK)},
	{name: "{-1}", talk: says("a LOGIN {-1}\r\n"+stillAsk, bad, stillOK)},
	{name: "{ 2}", talk: says("a LOGIN { 2}\r\n"+stillAsk, bad, stillOK)},
	{name: "{}", talk: says("a LOGIN {}\r\n"+stillAsk, bad, stillOK)},
	{name: "{2x}", talk: says("a LOGIN {2x}\r\n"+stillAsk, bad, stillOK)},
	{name: "~{2}", talk: says("a LOGIN ~{2}\r\n"+stillAsk, bad, stillOK)},
	{name: "a command hidden in a refused {n+}", talk: says("a LOGIN x y {8+}\r\nb NOOP\r\n\r\n"+stillAsk, bad, stillOK)},
	{name: "a command hidden in a too large {n+}", talk: says("a LOGIN {1100+}\r\n"+strings.Repeat("b NOOP\r\n\r\n\r\n", 100)[:1100]+"\r\n"+stillAsk, bad, stillOK)},
	{name: "{0+} for both", talk: says("a LOGIN {0+}\r\n {0+}\r\n\r\n", no)},
	{name: "{0}", talk: func(p *peer) {
		says("a LOGIN {0}\r\n", `\+ OK`)(p)
		says(" x\r\n", no)(p)
	}},
	{name: "more than 8 literals", talk: says("a LOGIN {1+}\r\nx {1+}\r\nx"+strings.Repeat(" {1+}\r\nx", 10)+"\r\n"+stillAsk, bad, stillOK)},
	{name: "10,000 parentheses", talk: says("a LOGIN "+strings.Repeat("(", 10000)+"\r\n", bad)},
	{name: "1,000 ID pairs", talk: says("a ID ("+strings.TrimSpace(strings.Repeat(`"n" "v" `, 1000))+")\r\n", bad)},
	{name: "CRLF in a literal user name", talk: says("a LOGIN {8+}\r\nbob\r\nx y secret\r\n", no)},
	{name: "a control character in a password", talk: says("a LOGIN bob \"se\x01cret\"\r\n", no)},
	{name: "stray backslash in a quoted string", talk: says(`a LOGIN "b\ob" secret`+"\r\n", bad)},
	{name: "CRLF in a quoted string", talk: says("a LOGIN \"bo\r\nb\" secret\r\n", bad, "b\" BAD .*|"+starBad)},
	{name: "list argument", talk: says("a LOGIN (bob) secret\r\n", bad)},
	{name: "1 argument", talk: says("a LOGIN bob\r\n", bad)},
	{name: "3 arguments", talk: says("a LOGIN bob secret more\r\n", bad)},
	{name: "empty user", talk: says("a LOGIN \"\" secret\r\n", no)},
	{name: "empty password", talk: says("a LOGIN bob \"\"\r\n", no)},
	{name: "percent in a user name", talk: says("a LOGIN \"bo%u\" secret\r\n", no)},
	{name: "star in a user name", talk: says("a LOGIN \"bo*b\" secret\r\n", no)},
	{name: "brace in a user name", talk: says("a LOGIN \"bo{5}\" secret\r\n", no)},
	{name: "equals sign in a user name", talk: says("a LOGIN \"bo=b\" secret\r\n", no)},
	{name: "TAB in a user name", talk: says("a LOGIN \"bo\tb\" secret\r\n", no)},
	{name: "0x01 in a user name", talk: says("a LOGIN \"bo\x01b\" secret\r\n", no)},
	{name: "bad base64", talk: says("a AUTHENTICATE PLAIN ABC\r\n", bad)},
	{name: "inner padding", talk: says("a AUTHENTICATE PLAIN AGJv=YgBz\r\n", bad)},
	{name: "leading padding", talk: says("a AUTHENTICATE PLAIN ==AGJv\r\n", bad)},
	{name: "TAB inside base64", talk: says("a AUTHENTICATE PLAIN\r\nAGJv\tYgBz\r\n", `\+ `, bad)},
	{name: "PLAIN with too few NULs", talk: says("a AUTHENTICATE PLAIN "+encode("\x00bob")+"\r\n", bad)},
	{name: "PLAIN with too many NULs", talk: says("a AUTHENTICATE PLAIN "+encode("\x00bob\x00x\x00y")+"\r\n", bad)},
	{name: "PLAIN with an empty authcid", talk: says("a AUTHENTICATE PLAIN "+encode("\x00\x00secret")+"\r\n", no)},
	{name: "PLAIN, the empty initial response", talk: says("a AUTHENTICATE PLAIN =\r\n", bad)},
	{name: "cancelled", talk: says("a AUTHENTICATE PLAIN\r\n*\r\n"+stillAsk, `\+ `, bad, stillOK)},
	{name: "foreign authzid, wrong password", logins: 1, talk: says("a AUTHENTICATE PLAIN "+encode("alice\x00bob\x00wrong")+"\r\n", no)},
	{name: "12 KiB SASL line for PLAIN", talk: says("a AUTHENTICATE PLAIN "+encode("\x00bob\x00"+strings.Repeat("x", 9000))+"\r\n", "a (BAD|NO) .*")},
	{name: "200 KiB SASL line", talk: ends("a AUTHENTICATE PLAIN\r\n"+strings.Repeat("A", 200<<10), `\+ `, bye)},
	{name: "unknown mechanism", talk: says("a AUTHENTICATE CRAM-MD5\r\n", `a NO \[CANNOT\] .*`)},
	{name: "quoted initial response", talk: says("a AUTHENTICATE PLAIN \"AGJvYgB4\"\r\n", bad)},
	{name: "a command instead of a SASL answer", talk: says("a AUTHENTICATE PLAIN\r\nb LOGIN bob secret\r\n"+stillAsk, `\+ `, bad, stillOK)},
	{name: "LOGIN and SELECT pipelined, LOGIN fails", logins: 1, talk: says("a LOGIN bob wrong\r\nb SELECT INBOX\r\n", no, "b BAD .*")},
}

// sendAll sends what may not be read to its end, while answers are read.
func (p *peer) sendAll(text string) {
	go p.Conn.Write([]byte(text))
}

func TestBadInput(t *testing.T) {
	for transport, run := range map[string]func(*testing.T, func(*rig)){"pipe": in, "socket": onSockets} {
		t.Run(transport, func(t *testing.T) {
			if transport == "socket" {
				t.Parallel()
			}
			for _, row := range beforeTLS {
				t.Run("143 before TLS/"+row.name, func(t *testing.T) {
					run(t, func(r *rig) { r.survives(row, r.connect) })
				})
			}
			for _, row := range overTLS {
				t.Run("143 over TLS/"+row.name, func(t *testing.T) {
					run(t, func(r *rig) { r.survives(row, r.startTLS) })
				})
				t.Run("993/"+row.name, func(t *testing.T) {
					run(t, func(r *rig) { r.survives(row, r.connectTLS) })
				})
			}
		})
	}
}

// survives plays a row, then has the same server serve a good login.
func (r *rig) survives(row badRow, connect func(string) *peer) {
	r.t.Helper()
	pair := "secret" + r.code(r.enroll("alice"))
	p := connect(home)
	row.talk(p)
	p.Close()
	if _, logins := r.upstream.count(); logins != row.logins {
		r.t.Errorf("%d attempts reached the upstream, want %d", logins, row.logins)
	}
	good := connect(home)
	if !isTLS(good) {
		good.send("s STARTTLS\r\n")
		good.want("s OK .*")
		good.secure(&tls.Config{InsecureSkipVerify: true})
	}
	if got := good.login("alice", pair); !strings.HasPrefix(got, "l OK") {
		r.t.Errorf("afterwards a good login gets %q", got)
	}
	good.Close()
}

func isTLS(p *peer) bool { _, ok := p.Conn.(*tls.Conn); return ok }

// Nothing is left of hostile connections: no descriptor, and no place taken.
func TestBadInputLeavesNothing(t *testing.T) {
	onSockets(t, func(r *rig) {
		before := descriptors(t)
		for _, row := range overTLS {
			p := r.connectTLS(home)
			row.talk(p)
			p.Close()
		}
		for _, row := range beforeTLS {
			p := r.connect(home)
			row.talk(p)
			p.Close()
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			r.mu.Lock()
			sessions := len(r.sessions)
			r.mu.Unlock()
			after := descriptors(t)
			if sessions == 0 && after <= before {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d sessions left, %d descriptors where %d were", sessions, after, before)
			}
		}
	})
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestHandshakeRows(t *testing.T) {
	refusals := map[string]*tls.Config{
		"TLS 1.0":       {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		"TLS 1.1":       {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"only h2":       {NextProtos: []string{"h2"}},
		"only smtp":     {NextProtos: []string{"smtp"}},
		"only pop3":     {NextProtos: []string{"pop3"}},
		"only http/1.1": {NextProtos: []string{"http/1.1"}},
	}
	for name, config := range refusals {
		t.Run(name, func(t *testing.T) {
			onSockets(t, func(r *rig) {
				p := r.dial(home, false)
				config := config.Clone()
				config.InsecureSkipVerify = true
				if err := tls.Client(p.raw, config).Handshake(); err == nil {
					t.Error("the handshake went through")
				}
				p.Close()
			})
		})
	}
	for name, config := range map[string]*tls.Config{
		"no ALPN": {}, "ALPN imap": {NextProtos: []string{"imap"}}, "ALPN imap among others": {NextProtos: []string{"h2", "imap"}},
		"unknown SNI": {ServerName: "elsewhere.example"}, "TLS 1.2": {MaxVersion: tls.VersionTLS12},
	} {
		t.Run(name, func(t *testing.T) {
			onSockets(t, func(r *rig) {
				p := r.dial(home, false)
				config := config.Clone()
				config.InsecureSkipVerify = true
				p.secure(config)
				p.want(`\* OK .*`)
				p.Close()
			})
		})
	}
	for name, text := range map[string]string{
		"HTTP on 993":          "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"IMAP on 993":          "a LOGIN alice secret\r\n",
		"PROXY header on 993":  "PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
		"PROXY header v2, 993": "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x0a\x00\x00\x01\x0a\x00\x00\x02\x00\x01\x00\x02",
	} {
		t.Run(name, func(t *testing.T) {
			onSockets(t, func(r *rig) {
				p := r.dial(home, false)
				p.send("%s", text)
				echo := make([]byte, 1000)
				n, err := p.raw.Read(echo)
				if n > 0 && !bytes.HasPrefix(echo[:n], []byte{21}) { // a TLS alert
					t.Errorf("answered with %q", echo[:n])
				}
				if err == nil {
					if n, err = p.raw.Read(echo); err == nil {
						t.Errorf("and then with %q", echo[:n])
					}
				}
				p.Close()
			})
		})
	}
}

// A client may not begin a renegotiation, which only TLS 1.2 has.
func TestRenegotiation(t *testing.T) {
	if serverTLS(t).Renegotiation != tls.RenegotiateNever {
		t.Error("renegotiation is on")
	}
}

// Nothing survives the upgrade: not the ID, not the count of bad commands.
func TestNothingSurvivesStartTLS(t *testing.T) {
	in(t, func(r *rig) {
		pair := "secret" + r.code(r.enroll("alice"))
		p := r.connect(home)
		p.send("i ID (\"name\" \"Injected\")\r\nx FOO\r\ny FOO\r\ns STARTTLS\r\n")
		p.want(`\* ID .*`, "i OK .*", "x BAD .*", "y BAD .*", "s OK .*")
		p.secure(&tls.Config{InsecureSkipVerify: true})
		p.send("c CAPABILITY\r\nx FOO\r\ny FOO\r\n")
		p.want(`\* CAPABILITY IMAP4rev1 ID LITERAL- SASL-IR AUTH=PLAIN AUTH=LOGIN`, "c OK .*", "x BAD .*", "y BAD .*")
		if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
			t.Fatal(got)
		}
		p.hangUp()
		if id := r.upstream.commands[0]; strings.Contains(id, "Injected") {
			t.Errorf("the ID from before TLS reached the upstream: %s", id)
		}
	})
}

// A pipelined ClientHello behind STARTTLS belongs to the handshake.
func TestEagerClientHello(t *testing.T) {
	onSockets(t, func(r *rig) {
		p := r.connect(home)
		eager := &eagerConn{Conn: p.raw, first: []byte("s STARTTLS\r\n"), skip: "s OK Begin TLS negotiation now\r\n"}
		conn := tls.Client(eager, &tls.Config{InsecureSkipVerify: true})
		if err := conn.Handshake(); err != nil {
			t.Fatalf("handshake: %v", err)
		}
		conn.Close()
	})
}

// An eagerConn sends STARTTLS together with the first octets of the handshake, and reads
// past the answer.
type eagerConn struct {
	net.Conn
	first []byte
	skip  string
}

func (c *eagerConn) Write(p []byte) (int, error) {
	if _, err := c.Conn.Write(append(c.first, p...)); err != nil {
		return 0, err
	}
	c.first = nil
	return len(p), nil
}

func (c *eagerConn) Read(p []byte) (int, error) {
	for len(c.skip) > 0 {
		b := make([]byte, len(c.skip))
		n, err := c.Conn.Read(b)
		if err != nil {
			return 0, err
		}
		if string(b[:n]) != c.skip[:n] {
			return 0, fmt.Errorf("got %q", b[:n])
		}
		c.skip = c.skip[n:]
	}
	return c.Conn.Read(p)
}

// A client that never reads is left at the write deadline.
func TestClientThatNeverReads(t *testing.T) {
	in(t, func(r *rig) {
		p := r.connectTLS(home)
		began := time.Now()
		p.send("a NOOP\r\n")
		synctest.Wait()
		time.Sleep(36 * time.Second) // the answer is never read, and crypto/tls gives its alert 5 s
		synctest.Wait()
		r.mu.Lock()
		left := len(r.sessions)
		r.mu.Unlock()
		if left != 0 {
			t.Errorf("after %v the session is still there", time.Since(began))
		}
		p.Close()
	})
}

// What is refused after login, as a client sees it.
func TestRefusedAfterLogin(t *testing.T) {
	in(t, func(r *rig) {
		pair := "secret" + r.code(r.enroll("alice"))
		p := r.connectTLS(home)
		if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
			t.Fatal(got)
		}
		for _, command := range []string{"LOGIN bob secret", "UNAUTHENTICATE", "STARTTLS", "AUTHENTICATE PLAIN", "COMPRESS DEFLATE"} {
			p.send("a %s\r\n", command)
			p.want(`\* ECHO REFUSED-BY-IMAPWARDEN`, "a OK done") // the fake upstream echoes what it gets
		}
		p.send("i ID (\"x-originating-ip\" \"10.0.0.1\" \"name\" \"x\")\r\n")
		p.want(`\* ID NIL`, "i OK done")
		p.hangUp()
		if id := r.upstream.commands[len(r.upstream.commands)-1]; id != `i ID ("name" "x")` {
			t.Errorf("ID reached the upstream as %s", id)
		}
	})
}

func TestAmbiguousCommandEndsTheSession(t *testing.T) {
	in(t, func(r *rig) {
		pair := "secret" + r.code(r.enroll("alice"))
		p := r.connectTLS(home)
		if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
			t.Fatal(got)
		}
		p.send("a NOOP\rb UNAUTHENTICATE\r\n")
		p.wantEnd()
		synctest.Wait()
		if got := r.sessionLines(); len(got) != 1 || got[0].ContextMap()["end"] != "ambiguous command" {
			t.Errorf("logged: %v", got)
		}
		if slices.ContainsFunc(r.upstream.commands, func(c string) bool { return strings.Contains(c, "UNAUTHENTICATE") }) {
			t.Error("it reached the upstream")
		}
	})
}

package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The deadlines of every state (see Timeouts), each by the worst client or upstream for it.
// The clock is synctest's, so a session's length in the log is exact.

// A slow session is one that only a deadline ends.
type slow struct {
	name  string
	setup func(*rig)
	play  func(*rig) *peer // connects and does what it does; then the rest is awaited
	deaf  bool             // the client reads nothing more
	why   end
	after time.Duration // from accept
	late  time.Duration // what crypto/tls may take to say so (5 s, in Close)
}

func (row slow) run(t *testing.T) {
	in(t, func(r *rig) {
		if row.setup != nil {
			row.setup(r)
		}
		p := row.play(r)
		if !row.deaf {
			go io.Copy(io.Discard, p.Conn)
		}
		time.Sleep(12 * time.Hour)
		synctest.Wait()
		p.Close()
		r.wantSession(row.why, row.after, row.late)
	})
}

func runAll(t *testing.T, rows []slow) {
	for _, row := range rows {
		t.Run(row.name, row.run)
	}
}

// wantSession looks up the one session in the log.
func (r *rig) wantSession(why end, after, late time.Duration) {
	r.t.Helper()
	synctest.Wait()
	sessions := r.sessionLines()
	if len(sessions) != 1 {
		r.t.Fatalf("%d sessions have ended, want 1", len(sessions))
	}
	fields := sessions[0].ContextMap()
	if fields["end"] != string(why) {
		r.t.Errorf("ended: %s, want: %s", fields["end"], why)
	}
	if took := fields["duration"].(time.Duration); took < after || took > after+late {
		r.t.Errorf("ended after %v, want %v", took, after)
	}
}

// trickle sends text octet by octet, one each second, for as long as somebody takes it.
func trickle(to io.Writer, text string) {
	for i := range len(text) {
		if _, err := io.WriteString(to, text[i:i+1]); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// hello is a ClientHello as it stands on the wire.
func hello(t *testing.T) string {
	var record bytes.Buffer
	tls.Client(recorder{&record}, &tls.Config{InsecureSkipVerify: true}).Handshake()
	if record.Len() < 100 {
		t.Fatal("no ClientHello")
	}
	return record.String()
}

// A recorder is a connection to nobody that keeps what is written.
type recorder struct{ io.Writer }

func (recorder) Read([]byte) (int, error)         { return 0, io.EOF }
func (recorder) Close() error                     { return nil }
func (recorder) LocalAddr() net.Addr              { return nil }
func (recorder) RemoteAddr() net.Addr             { return nil }
func (recorder) SetDeadline(time.Time) error      { return nil }
func (recorder) SetReadDeadline(time.Time) error  { return nil }
func (recorder) SetWriteDeadline(time.Time) error { return nil }

// Timeouts.Handshake, on both listeners.
func TestDeadlineHandshake(t *testing.T) {
	begin := func(r *rig) *peer { // on 143: STARTTLS after 20 s
		p := r.connect(home)
		time.Sleep(20 * time.Second)
		p.send("s STARTTLS\r\n")
		p.want("s OK .*")
		return p
	}
	halfHello := func(p *peer) *peer {
		p.send("%s", hello(p.t)[:100])
		return p
	}
	trickled := func(p *peer) *peer {
		go io.Copy(io.Discard, p.r)
		trickle(p.raw, hello(p.t))
		return p
	}
	runAll(t, []slow{
		{name: "143, silence", play: begin, why: endHandshake, after: 30 * time.Second},
		{name: "143, half a ClientHello", play: func(r *rig) *peer { return halfHello(begin(r)) }, why: endHandshake, after: 30 * time.Second},
		{name: "143, one octet a second", play: func(r *rig) *peer { return trickled(begin(r)) }, why: endHandshake, after: 30 * time.Second},
		{name: "993, half a ClientHello", play: func(r *rig) *peer { return halfHello(r.dial(home, false)) }, why: endHandshake, after: 10 * time.Second},
		{name: "993, one octet a second", play: func(r *rig) *peer { return trickled(r.dial(home, false)) }, why: endHandshake, after: 10 * time.Second},
		{name: "993, a client that doesn't read", deaf: true, play: func(r *rig) *peer {
			p := r.dial(home, false)
			p.send("%s", hello(t))
			return p
		}, why: endHandshake, after: 10 * time.Second, late: 5 * time.Second},
	})
}

// Timeouts.Command, from a command's first octet to its last. Answers to "+" are part of it.
func TestDeadlineCommand(t *testing.T) {
	after := func(text string, rest func(*peer)) func(*rig) *peer { // 20 s of silence before it
		return func(r *rig) *peer {
			p := r.connectTLS(home)
			time.Sleep(20 * time.Second)
			p.send("%s", text)
			rest(p)
			return p
		}
	}
	silence := func(*peer) {}
	long := func(p *peer) {
		go io.Copy(io.Discard, p.r)
		trickle(p, strings.Repeat("x", 100))
	}
	invited := func(challenge string, then func(*peer)) func(*peer) {
		return func(p *peer) {
			p.want(challenge)
			time.Sleep(10 * time.Second)
			then(p)
		}
	}
	rows := []slow{
		{name: "an octet a second", play: after("a ID (\"name\" \"", long)},
		{name: "a refused command, an octet a second", play: after("a XYZZY ", long)},
		{name: "half a literal", play: after("a LOGIN alice {10+}\r\nsecr", silence)},
		{name: "a literal, an octet a second", play: after("a LOGIN alice {1000+}\r\n", long)},
		{name: "a refused literal, an octet a second", play: after("a LOGIN alice {2000+}\r\n", long)},
		{name: "an invited literal that doesn't come", play: after("a LOGIN alice {10}\r\n", invited(`\+ OK`, silence))},
		{name: "an invited literal, an octet a second", play: after("a LOGIN alice {1000}\r\n", invited(`\+ OK`, long))},
		{name: "no SASL answer", play: after("a AUTHENTICATE PLAIN\r\n", invited(`\+ `, silence))},
		{name: "a SASL answer, an octet a second", play: after("a AUTHENTICATE PLAIN\r\n", invited(`\+ `, long))},
		{name: "no second SASL answer", play: after("a AUTHENTICATE LOGIN\r\n", invited(`\+ VXNlcm5hbWU6`, func(p *peer) {
			p.send("YWxpY2U=\r\n")
			p.want(`\+ UGFzc3dvcmQ6`)
		}))},
		{name: "143, half of LOGIN", play: func(r *rig) *peer {
			p := r.connect(home)
			time.Sleep(20 * time.Second)
			p.send("a LOGIN alice sec")
			return p
		}},
	}
	for i := range rows {
		rows[i].why, rows[i].after = endTimeout, 50*time.Second
	}
	runAll(t, rows)
}

// Timeouts.Unauthenticated, from accept, whatever the client is doing.
func TestDeadlineUnauthenticated(t *testing.T) {
	noops := func(p *peer) { // every 10 s, for as long as somebody takes them
		go io.Copy(io.Discard, p.r)
		for {
			if _, err := io.WriteString(p.Conn, "a NOOP\r\n"); err != nil {
				return
			}
			time.Sleep(10 * time.Second)
		}
	}
	first := func(p *peer) *peer { // who never says a word is ended sooner
		p.send("n NOOP\r\n")
		p.want("n OK .*")
		return p
	}
	const inAll = 3 * time.Minute
	runAll(t, []slow{
		{name: "993, NOOP every 10 s", why: endTimeout, after: inAll, play: func(r *rig) *peer {
			p := r.connectTLS(home)
			noops(p)
			return p
		}},
		{name: "143, silence", why: endTimeout, after: 30 * time.Second, play: func(r *rig) *peer { return r.connect(home) }},
		{name: "993, silence", why: endTimeout, after: 30 * time.Second, play: func(r *rig) *peer { return r.connectTLS(home) }},
		{name: "silence after a first command", why: endTimeout, after: inAll, play: func(r *rig) *peer { return first(r.connect(home)) }},
		{name: "143, NOOP every 10 s", why: endTimeout, after: inAll, play: func(r *rig) *peer {
			p := r.connect(home)
			noops(p)
			return p
		}},
		{name: "STARTTLS doesn't begin it anew", why: endTimeout, after: inAll, play: func(r *rig) *peer {
			p := first(r.connect(home))
			time.Sleep(2 * time.Minute)
			p.send("s STARTTLS\r\n")
			p.want("s OK .*")
			p.secure(&tls.Config{InsecureSkipVerify: true})
			noops(p)
			return p
		}},
		{name: "a handshake shortly before its end", why: endHandshake, after: inAll, play: func(r *rig) *peer {
			p := first(r.connect(home))
			time.Sleep(inAll - 3*time.Second)
			p.send("s STARTTLS\r\n")
			p.want("s OK .*")
			return p
		}},
		{name: "a command shortly before its end", why: endTimeout, after: inAll, play: func(r *rig) *peer {
			p := first(r.connectTLS(home))
			time.Sleep(inAll - 3*time.Second)
			p.send("a LOGIN alice {10}\r\n")
			p.want(`\+ OK`)
			return p
		}},
		{name: "wrong passwords", why: endTimeout, after: inAll, play: func(r *rig) *peer {
			p := first(r.connectTLS(home))
			for range 2 {
				time.Sleep(80 * time.Second)
				if got := p.login("alice", "wrong"); got != failed {
					t.Errorf("got %q", got)
				}
			}
			return p
		}},
	})
}

// An attempt that came in time has its answer, and then its session, though the time runs
// out meanwhile.
func TestDeadlineUnauthenticatedSparesALogin(t *testing.T) {
	in(t, func(r *rig) {
		secret := r.enroll("alice")
		r.upstream.script = func(conn net.Conn) {
			time.Sleep(10 * time.Second)
			r.upstream.serve(conn)
		}
		p := r.connectTLS(home)
		p.send("n NOOP\r\n")
		p.want("n OK .*")
		time.Sleep(3*time.Minute - time.Second)
		if got := p.login("alice", "secret"+r.code(secret)); !strings.HasPrefix(got, "l OK") {
			t.Fatal(got)
		}
		time.Sleep(5 * time.Minute)
		p.send("x NOOP\r\n")
		p.want(`\* ECHO NOOP`, "x OK done")
		p.hangUp()
	})
}

// Timeouts.Login: an answer comes in time, wherever the upstream hangs, and the client
// keeps its connection.
func TestDeadlineLogin(t *testing.T) {
	const greeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN] ready\r\n"
	says := func(texts ...string) func(net.Conn) { // each after something was asked, but for the greeting
		return func(conn net.Conn) {
			b := make([]byte, 4096)
			for i, text := range texts {
				if i > 0 {
					conn.Read(b)
				}
				io.WriteString(conn, text)
			}
			hang(conn)
		}
	}
	scripts := map[string]func(net.Conn){
		"half a greeting":         says("* OK [CAPA"),
		"no answer to CAPABILITY": says("* OK ready\r\n"),
		"no answer to ID":         says(greeting),
		"no answer to the login":  says(greeting, "* ID NIL\r\n", ""),
		"a greeting, an octet a second": func(conn net.Conn) {
			trickle(conn, greeting)
		},
		"an untagged line a second": func(conn net.Conn) {
			io.WriteString(conn, greeting)
			go io.Copy(io.Discard, conn)
			for {
				if _, err := io.WriteString(conn, "* OK Waiting\r\n"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		},
		"reads nothing": func(conn net.Conn) {
			io.WriteString(conn, greeting)
			time.Sleep(time.Minute)
		},
	}
	dials := map[string]func(context.Context, string, string) (net.Conn, error){
		"a connection that isn't made": func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	}
	unavailable := func(t *testing.T, r *rig) {
		p := r.connectTLS(home)
		for range 2 {
			began := time.Now()
			p.send("l LOGIN alice secret\r\n")
			p.want(`l NO \[UNAVAILABLE\] .*`)
			if took := time.Since(began); took != 15*time.Second {
				t.Errorf("answered after %v", took)
			}
		}
		p.send("a NOOP\r\n")
		p.want("a OK .*")
		p.hangUp()
	}
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			in(t, func(r *rig) {
				r.upstream.script = script
				unavailable(t, r)
			})
		})
	}
	for name, dial := range dials {
		t.Run(name, func(t *testing.T) {
			in(t, func(r *rig) {
				r.Route("alice").Dial = dial
				unavailable(t, r)
			})
		})
	}
}

// Timeouts.Write, before login: a client that doesn't read.
func TestDeadlineWrite(t *testing.T) {
	runAll(t, []slow{
		{name: "143, the greeting", deaf: true, why: endTimeout, after: 30 * time.Second, play: func(r *rig) *peer {
			return r.dial(home, true)
		}},
		{name: "993, the greeting", deaf: true, why: endTimeout, after: 30 * time.Second, late: 5 * time.Second, play: func(r *rig) *peer {
			p := r.dial(home, false)
			p.secure(&tls.Config{InsecureSkipVerify: true})
			return p
		}},
		{name: "143, an answer", deaf: true, why: endTimeout, after: 40 * time.Second, play: func(r *rig) *peer {
			p := r.connect(home)
			time.Sleep(10 * time.Second)
			p.send("a NOOP\r\n")
			return p
		}},
		{name: "a refusal", deaf: true, why: endTimeout, after: 42 * time.Second, late: 5 * time.Second, play: func(r *rig) *peer {
			p := r.connectTLS(home)
			time.Sleep(10 * time.Second)
			p.send("a LOGIN alice wrong\r\n") // refused after 2 s
			return p
		}},
		{name: "the OK to a login", deaf: true, why: endTimeout, after: 40 * time.Second, late: 5 * time.Second, play: func(r *rig) *peer {
			pair := "secret" + r.code(r.enroll("alice"))
			p := r.connectTLS(home)
			time.Sleep(10 * time.Second)
			p.send("a LOGIN alice %s\r\n", pair)
			return p
		}},
	})
}

// loggedIn is a session whose upstream goes on with relay once the login is through.
func loggedIn(r *rig, relay func(conn net.Conn)) *peer {
	r.t.Helper()
	pair := "secret" + r.code(r.enroll("alice"))
	if relay != nil {
		r.upstream.script = func(conn net.Conn) {
			letIn(conn)
			relay(conn)
		}
	}
	p := r.connectTLS(home)
	if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
		r.t.Fatal(got)
	}
	return p
}

// letIn is an upstream that takes any login.
func letIn(conn net.Conn) {
	io.WriteString(conn, "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n")
	b := make([]byte, 4096)
	n, _ := conn.Read(b) // ID isn't offered: this is the login
	tag, _, _ := strings.Cut(string(b[:n]), " ")
	fmt.Fprintf(conn, "%s OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n", tag)
}

// Timeouts.Write, during the relay: either side may be the one that doesn't read. It has as
// long from the last thing that it said itself.
func TestDeadlineWriteRelay(t *testing.T) {
	flood := func(conn net.Conn) {
		go io.Copy(io.Discard, conn)
		for {
			if _, err := io.WriteString(conn, "* 1 EXISTS\r\n"); err != nil {
				return
			}
		}
	}
	tenTimes := func(conn io.Writer, text string) { // one each 10 s
		for range 10 {
			io.WriteString(conn, text)
			time.Sleep(10 * time.Second)
		}
	}
	runAll(t, []slow{
		{name: "client", deaf: true, why: endTimeout, after: 30 * time.Second, late: 5 * time.Second, play: func(r *rig) *peer {
			return loggedIn(r, flood)
		}},
		{name: "client that sends", deaf: true, why: endTimeout, after: 120 * time.Second, late: 5 * time.Second, play: func(r *rig) *peer {
			p := loggedIn(r, flood)
			tenTimes(p, "DONE\r\n") // the last after 90 s
			return p
		}},
		{name: "upstream", why: endTimeout, after: 40 * time.Second, play: func(r *rig) *peer {
			p := loggedIn(r, func(net.Conn) { time.Sleep(time.Hour) })
			time.Sleep(10 * time.Second)
			p.send("a NOOP\r\n")
			return p
		}},
		{name: "upstream that sends", why: endTimeout, after: 120 * time.Second, play: func(r *rig) *peer {
			p := loggedIn(r, func(conn net.Conn) { // the last after 90 s
				tenTimes(conn, "* 1 EXISTS\r\n")
				time.Sleep(time.Hour)
			})
			time.Sleep(time.Second)
			p.send("a NOOP\r\n")
			return p
		}},
	})
}

// Timeouts.Idle counts from the last octet of either side.
func TestDeadlineIdle(t *testing.T) {
	const idle, hours = 35 * time.Minute, 3 * time.Hour
	runAll(t, []slow{
		{name: "silence", why: endTimeout, after: idle, play: func(r *rig) *peer { return loggedIn(r, hang) }},
		{name: "only the upstream sends", why: endTimeout, after: hours + idle, play: func(r *rig) *peer {
			return loggedIn(r, func(conn net.Conn) {
				for range int(hours / (30 * time.Minute)) {
					time.Sleep(30 * time.Minute)
					io.WriteString(conn, "* 1 EXISTS\r\n")
				}
				hang(conn)
			})
		}},
		{name: "only the client sends", why: endTimeout, after: hours + idle, play: func(r *rig) *peer {
			p := loggedIn(r, hang)
			for range int(hours / (30 * time.Minute)) {
				time.Sleep(30 * time.Minute)
				p.send("DONE\r\n")
			}
			return p
		}},
		{name: "half a command", why: endTimeout, after: 10*time.Minute + idle, play: func(r *rig) *peer {
			p := loggedIn(r, hang)
			time.Sleep(10 * time.Minute)
			p.send("a NO")
			return p
		}},
		{name: "a literal that the upstream doesn't ask for", why: endTimeout, after: 10*time.Minute + maxHold, play: func(r *rig) *peer {
			p := loggedIn(r, hang)
			time.Sleep(10 * time.Minute)
			p.send("a APPEND x {3+}\r\nabc\r\n")
			return p
		}},
	})
}

// A duplex is a connection of two pipes, so that each direction can end alone.
type duplex struct {
	in, out net.Conn
}

func newDuplex() (a, b duplex) {
	in1, out1 := net.Pipe()
	in2, out2 := net.Pipe()
	return duplex{in1, out2}, duplex{in2, out1}
}

func (d duplex) Read(p []byte) (int, error)         { return d.in.Read(p) }
func (d duplex) Write(p []byte) (int, error)        { return d.out.Write(p) }
func (d duplex) CloseWrite() error                  { return d.out.Close() }
func (d duplex) SetReadDeadline(t time.Time) error  { return d.in.SetReadDeadline(t) }
func (d duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }
func (d duplex) LocalAddr() net.Addr                { return net.TCPAddrFromAddrPort(mustAddr("192.0.2.1:993")) }

func (d duplex) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(mustAddr(home)) }

func (d duplex) SetDeadline(t time.Time) error {
	d.in.SetDeadline(t)
	return d.out.SetDeadline(t)
}

func (d duplex) Close() error {
	d.in.Close()
	return d.out.Close()
}

// halfOpen is loggedIn over connections that can be closed by halves.
func halfOpen(r *rig, relay func(conn duplex)) (p *peer, raw duplex) {
	r.t.Helper()
	pair := "secret" + r.code(r.enroll("alice"))
	r.Route("alice").Dial = func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := newDuplex()
		r.upstream.wg.Go(func() {
			defer theirs.Close()
			letIn(theirs)
			relay(theirs)
		})
		return ours, nil
	}
	server, client := newDuplex()
	r.ServeConn(server, Listener{})
	p = &peer{Conn: client, t: r.t, raw: client}
	p.secure(&tls.Config{InsecureSkipVerify: true})
	p.want(`\* OK .*`)
	if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
		r.t.Fatal(got)
	}
	return p, client
}

// A half-open session: the upstream may finish what it has to say to a client that has
// ended, but nobody is there any more for what a client says.
func TestDeadlineHalfOpen(t *testing.T) {
	closeHalf := func(p *peer, raw duplex) {
		p.Conn.(*tls.Conn).CloseWrite()
		raw.CloseWrite()
	}
	every20s := func(conn io.Writer) { // for two minutes
		for range 6 {
			time.Sleep(20 * time.Second)
			if _, err := io.WriteString(conn, "DONE\r\n"); err != nil {
				return
			}
		}
	}
	runAll(t, []slow{
		{name: "client ends, upstream is silent", why: endClient, after: 40 * time.Second, play: func(r *rig) *peer {
			p, raw := halfOpen(r, func(conn duplex) { hang(conn); time.Sleep(time.Hour) })
			time.Sleep(10 * time.Second)
			closeHalf(p, raw)
			return p
		}},
		{name: "client ends, upstream goes on", why: endClient, after: 160 * time.Second, play: func(r *rig) *peer {
			p, raw := halfOpen(r, func(conn duplex) { hang(conn); every20s(conn); time.Sleep(time.Hour) })
			time.Sleep(10 * time.Second)
			closeHalf(p, raw)
			return p
		}},
		{name: "client ends, upstream ends", why: endClient, after: 130 * time.Second, play: func(r *rig) *peer {
			p, raw := halfOpen(r, func(conn duplex) { hang(conn); every20s(conn) })
			time.Sleep(10 * time.Second)
			closeHalf(p, raw)
			return p
		}},
		{name: "upstream ends, client is silent", why: endUpstream, after: 15 * time.Second, play: func(r *rig) *peer {
			p, _ := halfOpen(r, func(conn duplex) {
				time.Sleep(10 * time.Second)
				conn.CloseWrite()
				hang(conn)
			})
			return p
		}},
		{name: "upstream ends, client goes on", why: endUpstream, after: 15 * time.Second, play: func(r *rig) *peer {
			p, _ := halfOpen(r, func(conn duplex) {
				time.Sleep(10 * time.Second)
				conn.CloseWrite()
				hang(conn)
			})
			go io.Copy(io.Discard, p.r)
			time.Sleep(10 * time.Second)
			every20s(p)
			return p
		}},
		{name: "upstream ends, client waits for a literal", why: endUpstream, after: 25 * time.Second, play: func(r *rig) *peer {
			p, _ := halfOpen(r, func(conn duplex) {
				time.Sleep(20 * time.Second)
				conn.CloseWrite()
				hang(conn)
			})
			time.Sleep(10 * time.Second)
			p.send("a APPEND x {3+}\r\nabc\r\n")
			return p
		}},
	})
}

package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pquerna/otp/totp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/certs"
	"imapwarden/metrics"
	"imapwarden/policy"
	"imapwarden/store/memory"
)

// A rig is a server with everything real but the network and the clock: clients and the
// upstream are at the other ends of pipes, and time is synctest's.
type rig struct {
	*Server
	t         *testing.T
	store     *memory.Store
	directory *auth.Directory
	logs      *observer.ObservedLogs
	upstream  *fakeUpstream
	sockets   map[bool]net.Listener // by StartTLS; nil: pipes
	trusted   []netip.Prefix        // proxies

	writeDeadline atomic.Int64 // of the newest pipe's server end
}

// onSockets runs f with a rig on real sockets and the real clock.
func onSockets(t *testing.T, f func(*rig)) {
	t.Helper()
	newRig(t).onSockets(f)
}

// onSockets is for a rig that is set up before it serves.
func (r *rig) onSockets(f func(*rig)) {
	t := r.t
	t.Helper()
	r.RefusalDelay = 10 * time.Millisecond
	r.sockets = map[bool]net.Listener{}
	var served sync.WaitGroup
	for _, startTLS := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		r.sockets[startTLS] = l
		served.Go(func() {
			if err := r.Serve(Listener{Listener: l, StartTLS: startTLS}); err != ErrServerClosed {
				t.Errorf("Serve: %v", err)
			}
		})
	}
	f(r)
	r.end()
	served.Wait()
}

// end shuts the server down at once and waits for all of it.
func (r *rig) end() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r.Shutdown(ctx)
	r.Audit.Close(context.Background())
	r.upstream.wg.Wait()
}

// in runs f with a rig inside a bubble, and fails if anything is left at the end.
func in(t *testing.T, f func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		f(r)
		r.end()
	})
}

func newRig(t *testing.T) *rig {
	core, logs := observer.New(zap.DebugLevel)
	log := zap.New(core)
	records := memory.New()
	keys, err := auth.OpenKeys(context.Background(), filepath.Join(t.TempDir(), "key"), records)
	if err != nil {
		t.Fatal(err)
	}
	up := &fakeUpstream{t: t, password: "secret"}
	upstream := &Upstream{Name: "test", Address: "upstream:143", TLS: UpstreamPlain, Forward: ForwardID, Dial: up.dial}
	upstream.pace.noteYes(time.Millisecond)
	upstream.pace.noteNo(time.Millisecond, time.Second)
	names := auth.Names{}
	r := &rig{
		t: t, store: records, logs: logs, upstream: up,
		directory: &auth.Directory{Records: records, Keys: keys, Names: names, Issuer: "test"},
		Server: &Server{
			Hostname: "mail.example.org",
			TLS:      serverTLS(t),
			Names:    names,
			Auth: &auth.Authenticator{Records: records, Keys: keys, Grant: auth.GrantSettings{
				From: auth.FromNetwork, IPv4Prefix: 24, IPv6Prefix: 64, Absolute: 12 * time.Hour, Idle: time.Hour,
			}},
			Mode:    auth.Required,
			Policy:  &policy.Gate{},
			Route:   func(string) *Upstream { return upstream },
			Audit:   audit.NewRecorder(records, log),
			Metrics: metrics.New(),
			Log:     log,
			Timeouts: Timeouts{
				Handshake: 10 * time.Second, Command: 30 * time.Second, Unauthenticated: 3 * time.Minute,
				Login: 15 * time.Second, Write: 30 * time.Second, Idle: 35 * time.Minute,
			},
			RefusalDelay: 2 * time.Second,
			Refusals:     3,
		},
	}
	// As the composition root does it.
	r.directory.Grant = r.Auth.Grant
	r.Auth.Ended = func(ended auth.Revocation) { r.Revoke(ended) }
	r.directory.Ended = r.Auth.Ended
	return r
}

var selfSigned = sync.OnceValues(func() (tls.Certificate, error) {
	cert, key, err := certs.SelfSigned([]string{"mail.example.org"}, 100*365*24*time.Hour)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
})

func serverTLS(t *testing.T) *tls.Config {
	pair, err := selfSigned()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"imap"}, MinVersion: tls.VersionTLS12}
}

// enroll makes an account and returns its secret.
func (r *rig) enroll(account string) string {
	r.t.Helper()
	return r.enrolment(account).Secret
}

// enrolment is enroll that returns the recovery codes too.
func (r *rig) enrolment(account string) auth.Enrolment {
	r.t.Helper()
	e, err := r.directory.Enroll(context.Background(), account, true)
	if err != nil {
		r.t.Fatal(err)
	}
	return e
}

// issue makes an app password.
func (r *rig) issue(wanted auth.NewAppPassword) auth.IssuedAppPassword {
	r.t.Helper()
	wanted.Label = "phone"
	issued, err := r.directory.CreateAppPassword(context.Background(), wanted)
	if err != nil {
		r.t.Fatal(err)
	}
	return issued
}

// answer signs in, hangs up, and returns what the tagged line says.
func (r *rig) answer(from, user, password string) string {
	r.t.Helper()
	p := r.connectTLS(from)
	defer p.hangUp()
	return p.login(user, password)
}

// enter opens a session that is logged in, or fails.
func (r *rig) enter(from, user, password string) *peer {
	r.t.Helper()
	p := r.connectTLS(from)
	p.enter(user, password)
	return p
}

func (r *rig) code(secret string) string {
	r.t.Helper()
	code, err := totp.GenerateCode(secret, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	return code
}

// events returns the audit so far, as "outcome reason factor".
func (r *rig) events() []string {
	var list []string
	for _, e := range r.audit() {
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.Outcome, e.Reason, e.Factor)))
	}
	return list
}

func (r *rig) audit() []audit.Event {
	synctest.Wait()
	events, err := r.store.Events(context.Background(), audit.Filter{})
	if err != nil {
		r.t.Fatal(err)
	}
	return events
}

// lastEvent is the audit's newest.
func (r *rig) lastEvent() audit.Event {
	r.t.Helper()
	events := r.audit()
	if len(events) == 0 {
		r.t.Fatal("there is no event")
	}
	return events[len(events)-1]
}

// sessionLines are the log's lines about sessions that have ended.
func (r *rig) sessionLines() []observer.LoggedEntry {
	return r.logs.FilterMessageSnippet("session").FilterLevelExact(zap.InfoLevel).All()
}

// A pipeEnd is one end of a net.Pipe with addresses.
type pipeEnd struct {
	net.Conn
	local, remote net.Addr
	writeDeadline *atomic.Int64
}

// SetWriteDeadline and SetDeadline note what stands, for tests that ask.
func (p pipeEnd) SetWriteDeadline(t time.Time) error {
	p.writeDeadline.Store(t.UnixNano())
	return p.Conn.SetWriteDeadline(t)
}

func (p pipeEnd) SetDeadline(t time.Time) error {
	p.writeDeadline.Store(t.UnixNano())
	return p.Conn.SetDeadline(t)
}

func (p pipeEnd) LocalAddr() net.Addr  { return p.local }
func (p pipeEnd) RemoteAddr() net.Addr { return p.remote }

// A peer is a client's side of a connection.
type peer struct {
	net.Conn
	t   *testing.T
	raw net.Conn
	r   *bufio.Reader
}

// connect opens a plaintext connection to a STARTTLS listener and reads the greeting.
func (r *rig) connect(from string) *peer {
	r.t.Helper()
	p := r.dial(from, true)
	p.want(`\* OK \[CAPABILITY IMAP4rev1 ID LITERAL- STARTTLS LOGINDISABLED\] .*`)
	return p
}

// startTLS is connect with STARTTLS behind it.
func (r *rig) startTLS(from string) *peer {
	r.t.Helper()
	p := r.connect(from)
	p.send("s STARTTLS\r\n")
	p.want("s OK .*")
	p.secure(&tls.Config{InsecureSkipVerify: true})
	return p
}

func (r *rig) dial(from string, startTLS bool) *peer {
	r.t.Helper()
	if r.sockets != nil {
		client, err := net.Dial("tcp", r.sockets[startTLS].Addr().String())
		if err != nil {
			r.t.Fatal(err)
		}
		client.SetDeadline(time.Now().Add(time.Minute)) // a test that hangs should say where
		return &peer{Conn: client, t: r.t, raw: client, r: bufio.NewReader(client)}
	}
	server, client := net.Pipe()
	remote := net.TCPAddrFromAddrPort(mustAddr(from))
	r.ServeConn(pipeEnd{server, net.TCPAddrFromAddrPort(mustAddr("192.0.2.1:993")), remote, &r.writeDeadline}, Listener{StartTLS: startTLS, TrustedProxies: r.trusted})
	return &peer{Conn: client, t: r.t, raw: client, r: bufio.NewReader(client)}
}

// connectTLS opens a connection to an implicit TLS listener and reads the greeting.
func (r *rig) connectTLS(from string) *peer {
	r.t.Helper()
	return r.connectAs(from, &tls.Config{InsecureSkipVerify: true})
}

// connectAs is connectTLS of a certain TLS client.
func (r *rig) connectAs(from string, client *tls.Config) *peer {
	r.t.Helper()
	p := r.dial(from, false)
	p.secure(client)
	p.want(`\* OK \[CAPABILITY .*`)
	return p
}

func (p *peer) secure(c *tls.Config) {
	p.t.Helper()
	conn := tls.Client(p.raw, c)
	if err := conn.Handshake(); err != nil {
		p.t.Fatalf("handshake: %v", err)
	}
	p.Conn, p.r = conn, bufio.NewReader(conn)
}

func (p *peer) send(format string, args ...any) {
	p.t.Helper()
	if len(args) > 0 {
		format = fmt.Sprintf(format, args...)
	}
	if _, err := io.WriteString(p.Conn, format); err != nil {
		p.t.Fatalf("sending %.60q: %v", format, err)
	}
}

func (p *peer) line() (string, error) {
	line, err := p.r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// want reads one line for each pattern, which must match it whole.
func (p *peer) want(patterns ...string) {
	p.t.Helper()
	for _, pattern := range patterns {
		line, err := p.line()
		if err != nil {
			p.t.Fatalf("waiting for %q: %v", pattern, err)
		}
		if !regexp.MustCompile(`^(?:` + pattern + `)$`).MatchString(line) {
			p.t.Fatalf("got %q, want %q", line, pattern)
		}
	}
}

// wantEnd reads to the end of the stream, and fails if anything comes before it.
func (p *peer) wantEnd() {
	p.t.Helper()
	if line, err := p.line(); err == nil {
		p.t.Fatalf("got %q, want the end", line)
	}
	p.Close()
}

// login sends LOGIN with a literal password and returns the tagged answer, without a hint
// before it.
func (p *peer) login(user, password string) string {
	p.t.Helper()
	p.send("l LOGIN %s {%d+}\r\n%s\r\n", user, len(password), password)
	for {
		line, err := p.line()
		if err != nil {
			p.t.Fatalf("waiting for the answer to LOGIN: %v", err)
		}
		if !strings.HasPrefix(line, "* NO [ALERT] Second factor") {
			return line
		}
	}
}

// enter is login that fails where it is refused.
func (p *peer) enter(user, password string) {
	p.t.Helper()
	if got := p.login(user, password); !strings.HasPrefix(got, "l OK") {
		p.t.Fatalf("%s isn't let in: %s", user, got)
	}
}

func (p *peer) hangUp() {
	p.Close()
	synctest.Wait()
}

// fakeUpstream is a small IMAP server: LOGIN and AUTHENTICATE PLAIN, then it echoes
// commands as untagged lines.
type fakeUpstream struct {
	t        *testing.T
	password string // of every account
	master   string // the password of the master user; "": there is none
	greeting string
	slowNo   time.Duration       // what a wrong password takes
	hold     chan struct{}       // a login is answered once this is closed; nil: at once
	script   func(conn net.Conn) // instead of the ordinary conversation

	wg       sync.WaitGroup
	mu       sync.Mutex
	commands []string
	dials    int
	logins   int
	saw      []string // what AUTHENTICATE PLAIN brought, decoded
}

func (u *fakeUpstream) dial(context.Context, string, string) (net.Conn, error) {
	server, client := net.Pipe()
	u.mu.Lock()
	u.dials++
	u.mu.Unlock()
	u.wg.Go(func() {
		defer server.Close()
		if u.script != nil {
			u.script(server)
			return
		}
		u.serve(server)
	})
	return client, nil
}

func (u *fakeUpstream) serve(conn net.Conn) {
	r := bufio.NewReader(conn)
	greeting := u.greeting
	if greeting == "" {
		greeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN] ready"
	}
	fmt.Fprintf(conn, "%s\r\n", greeting)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		u.mu.Lock()
		u.commands = append(u.commands, line)
		u.mu.Unlock()
		tag, command, _ := strings.Cut(line, " ")
		switch verb, rest, _ := strings.Cut(command, " "); strings.ToUpper(verb) {
		case "ID":
			fmt.Fprintf(conn, "* ID NIL\r\n%s OK done\r\n", tag)
		case "AUTHENTICATE":
			message, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(rest, "PLAIN "))
			part := strings.Split(string(message), "\x00")
			u.mu.Lock()
			u.logins++
			u.saw = append(u.saw, string(message))
			u.mu.Unlock()
			if u.hold != nil {
				<-u.hold
			}
			if len(part) != 3 || !u.takes(part[0], part[1], part[2]) {
				time.Sleep(u.slowNo)
				fmt.Fprintf(conn, "%s NO [AUTHENTICATIONFAILED] no\r\n", tag)
				continue
			}
			fmt.Fprintf(conn, "%s OK [CAPABILITY IMAP4rev1 IDLE STARTTLS AUTH=PLAIN UNAUTHENTICATE COMPRESS=DEFLATE MOVE] Logged in\r\n", tag)
		case "CAPABILITY":
			fmt.Fprintf(conn, "* CAPABILITY IMAP4rev1 IDLE\r\n%s OK done\r\n", tag)
		case "HANG": // and never answer
			io.Copy(io.Discard, r)
			return
		case "LOGOUT":
			fmt.Fprintf(conn, "* BYE\r\n%s OK done\r\n", tag)
			return
		default:
			fmt.Fprintf(conn, "* ECHO %s\r\n%s OK done\r\n", command, tag)
		}
	}
}

// takes says whether that is the password of the account, or of the master user, who comes
// with an account's name as authzid or before a star.
func (u *fakeUpstream) takes(authzid, user, password string) bool {
	if authzid != "" || strings.Contains(user, "*") {
		return u.master != "" && password == u.master
	}
	return password == u.password
}

// last is what the newest AUTHENTICATE PLAIN brought.
func (u *fakeUpstream) last() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.saw) == 0 {
		return ""
	}
	return u.saw[len(u.saw)-1]
}

// heard says whether one of the commands, tag left out, begins like that.
func (u *fakeUpstream) heard(command string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.ContainsFunc(u.commands, func(line string) bool {
		_, rest, _ := strings.Cut(line, " ")
		return strings.HasPrefix(rest, command)
	})
}

func (u *fakeUpstream) count() (dials, logins int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.dials, u.logins
}

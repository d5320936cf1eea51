package relay

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	randv2 "math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// An opaque connection isn't a *net.TCPConn, so its session is relayed by goroutines.
type opaque struct{ *net.TCPConn }

// transports are the two ways of waiting for a socket.
var transports = []struct {
	name string
	wrap func(*net.TCPConn) net.Conn
}{
	{"epoll", func(c *net.TCPConn) net.Conn { return c }},
	{"goroutines", func(c *net.TCPConn) net.Conn { return opaque{c} }},
}

// ample is for tests in which no deadline is to be met.
var ample = Limits{Idle: time.Hour, Write: time.Hour, Hold: time.Hour, HalfClient: time.Hour, HalfUpstream: time.Hour}

// A plan is what a session is made of. The zero value of a field means: none, or the usual.
type plan struct {
	wrap                       func(*net.TCPConn) net.Conn
	client, upstream           uint16 // version of TLS; 0: plaintext
	filter                     Filter
	limits                     Limits
	firstClient, firstUpstream []byte
	small                      bool // the sockets' buffers, so that writes come short
	engine                     *Engine
	done                       func(End, error) // called besides
	before                     func(*rig)       // called before Relay
}

// A far is the other end of one of the session's connections.
type far struct {
	stream
	tcp  *net.TCPConn
	gate *gate
	keys bytes.Buffer // a TLS client's secrets
}

type stream interface {
	net.Conn
	CloseWrite() error
}

// half says that nothing more comes: close_notify where there is TLS, and FIN.
func (f *far) half() error {
	if _, ok := f.stream.(*tls.Conn); ok {
		if err := f.stream.CloseWrite(); err != nil {
			return err
		}
	}
	return f.tcp.CloseWrite()
}

// reset has the other side get an RST.
func (f *far) reset() {
	f.tcp.SetLinger(0)
	f.tcp.Close()
}

// A gate is what lies below TLS. Once armed it lets no more than so many octets through, and it
// knows whether FIN was read: an io.EOF of TLS without it is a close_notify.
type gate struct {
	*net.TCPConn
	fin   atomic.Bool
	armed atomic.Bool
	left  atomic.Int64
	tap   *bytes.Buffer // gets what is lost; nil: nothing
}

func (g *gate) Read(p []byte) (int, error) {
	n, err := g.TCPConn.Read(p)
	if err != nil {
		g.fin.Store(true)
	}
	return n, err
}

func (g *gate) Write(p []byte) (int, error) {
	if !g.armed.Load() {
		return g.TCPConn.Write(p)
	}
	n := min(int(g.left.Load()), len(p))
	g.left.Add(int64(-n))
	if _, err := g.TCPConn.Write(p[:n]); err != nil {
		return 0, err
	}
	if g.tap != nil {
		g.tap.Write(p[n:])
	}
	return len(p), nil
}

// only lets n more octets through, and loses what comes behind them.
func (g *gate) only(n int) {
	g.left.Store(int64(n))
	g.armed.Store(true)
}

type outcome struct {
	end End
	err error
}

// A rig is a session with both its far ends.
type rig struct {
	*Session
	client, upstream *far
	ends             chan outcome
}

// relayed starts a session. When the test ends the session does, too, and it is checked that it said
// so no more than once.
func relayed(t testing.TB, p plan) *rig {
	t.Helper()
	r := &rig{Session: new(Session), ends: make(chan outcome, 8)}
	r.client = connect(t, &r.Session.Client, p, p.client, true)
	r.upstream = connect(t, &r.Session.Upstream, p, p.upstream, false)
	r.Session.Client.First, r.Session.Upstream.First = p.firstClient, p.firstUpstream
	if r.Filter = p.filter; p.filter == nil {
		r.Filter = pass{}
	}
	r.Done = func(end End, err error) {
		r.ends <- outcome{end, err}
		if p.done != nil {
			p.done(end, err)
		}
	}
	engine := p.engine
	if engine == nil {
		engine = &Engine{Limits: p.limits}
		if p.limits == (Limits{}) {
			engine.Limits = ample
		}
	}
	if p.before != nil {
		p.before(r)
	}
	engine.Relay(r.Session)
	t.Cleanup(func() {
		r.Cut()
		eventually(t, "a session that was cut ends", func() bool { return r.state.Load() == closed })
		if p.engine == nil {
			engine.Close()
		}
		r.client.tcp.Close()
		r.upstream.tcp.Close()
		if len(r.ends) > 1 {
			t.Errorf("Done was called %d times more", len(r.ends)-1)
		}
	})
	return r
}

// wait returns why the session ended.
func (r *rig) wait(t testing.TB) outcome {
	t.Helper()
	select {
	case e := <-r.ends:
		return e
	case <-time.After(10 * time.Second):
		t.Fatalf("the session doesn't end; state %d", r.state.Load())
		return outcome{}
	}
}

// ending fails unless the session ends for this reason.
func (r *rig) ending(t testing.TB, end End, failed bool) outcome {
	t.Helper()
	got := r.wait(t)
	if got.end != end || (got.err != nil) != failed {
		t.Errorf("end %d, %v; want %d, an error: %v", got.end, got.err, end, failed)
	}
	return got
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("it never comes that " + what)
		}
	}
}

var listener = sync.OnceValues(func() (net.Listener, error) { return net.Listen("tcp4", "127.0.0.1:0") })

var pairing sync.Mutex // who dials is accepted

func pair(t testing.TB) (far, near *net.TCPConn) {
	t.Helper()
	pairing.Lock()
	defer pairing.Unlock()
	l, err := listener()
	if err != nil {
		t.Fatal(err)
	}
	f, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return f.(*net.TCPConn), n.(*net.TCPConn)
}

// connect makes a side and its far end; server says that ours is the server.
func connect(t testing.TB, side *Side, p plan, version uint16, server bool) *far {
	t.Helper()
	other, own := pair(t)
	if p.small {
		for _, c := range []*net.TCPConn{other, own} {
			c.SetReadBuffer(32 << 10)
			c.SetWriteBuffer(4 << 10)
		}
	}
	wrap := p.wrap
	if wrap == nil {
		wrap = transports[0].wrap
	}
	side.Socket = &Socket{Conn: wrap(own)}
	f := &far{stream: other, tcp: other, gate: &gate{TCPConn: other}}
	if version == 0 {
		f.stream = f.gate
		return f
	}
	config := &tls.Config{
		MinVersion: version, MaxVersion: version, InsecureSkipVerify: true, Certificates: []tls.Certificate{certificate()},
	}
	client := config.Clone()
	client.KeyLogWriter = &f.keys
	conn := tls.Client(f.gate, client)
	side.TLS = tls.Server(side.Socket, config)
	if !server {
		conn, side.TLS = tls.Server(f.gate, config), tls.Client(side.Socket, config)
	}
	f.stream = conn
	failed := make(chan error, 1)
	go func() { failed <- conn.Handshake() }()
	if err := errors.Join(side.TLS.Handshake(), <-failed); err != nil {
		t.Fatal(err)
	}
	return f
}

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

// pass passes all.
type pass struct{}

func (pass) Client(p []byte) ([]byte, int, error) { return p, len(p), nil }
func (pass) Holding() bool                        { return false }
func (pass) Upstream(p []byte) []byte             { return p }

// noise returns n octets that are the same for the same seed.
func noise(seed byte, n int) []byte {
	p := make([]byte, n)
	randv2.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

// same says where what came differs from what was sent.
func same(got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Errorf("differs at octet %d of %d", i, len(want))
		}
	}
	return fmt.Errorf("%d octets came; want %d", len(got), len(want))
}

// read takes n octets.
func read(t testing.TB, from io.Reader, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	if m, err := io.ReadFull(from, p); err != nil {
		t.Fatalf("after %d of %d octets: %v", m, n, err)
	}
	return p
}

func write(t testing.TB, to io.Writer, p []byte) {
	t.Helper()
	if _, err := to.Write(p); err != nil {
		t.Fatal(err)
	}
}

// descriptors counts those of this process.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}

//go:build !race

// Under the race detector memory says nothing: every allocation and stack is inflated. So
// this file isn't even compiled there; ./test runs TestMemory without it.

package proxy

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imapwarden/policy"
)

// What one hostile connection may cost before login, heap and stacks together. The
// kernel's socket buffers aren't ours to count.
const (
	memoryBound       = 64 << 10
	memoryConnections = 300
)

// A posture is what a connection is left in: as much as we can be made to keep. Where it
// is greedy the session may have been ended instead, which costs nothing.
type posture struct {
	name     string
	startTLS bool // the listener
	greedy   bool
	take     func(c *occupier)
}

var postures = []posture{
	{"993, connected only", false, false, func(*occupier) {}},
	{"993, TLS done", false, false, func(c *occupier) { c.secure(small()) }},
	{"993, half an ID", false, false, func(c *occupier) { c.secure(small()); c.send(halfID) }},
	{"993, an ID and half of another", false, false, func(c *occupier) { c.secure(small()); c.send(wholeID); c.line(); c.send(halfID) }},
	{"993, half a SASL line", false, false, func(c *occupier) { c.secure(small()); c.send("a AUTHENTICATE PLAIN\r\n"); c.line(); c.send(saslLine) }},
	{"993, half an initial response", false, false, func(c *occupier) { c.secure(small()); c.send("a AUTHENTICATE PLAIN " + saslLine) }},
	{"993, half of a second SASL line", false, true, func(c *occupier) {
		c.secure(small())
		c.send("a AUTHENTICATE LOGIN\r\n")
		c.line()
		c.send(saslLine + "\r\n")
		c.line()
		c.send(saslLine)
	}},
	{"993, a command line", false, false, func(c *occupier) { c.secure(small()); c.send(longLine) }},
	{"993, half a literal", false, false, func(c *occupier) { c.secure(small()); c.send(halfLiteral) }},
	{"993, half a TLS record", false, false, func(c *occupier) {
		c.secure(small())
		c.conn = c.raw
		c.send("\x17\x03\x03\x40\x00" + strings.Repeat("x", 16000))
	}},
	{"993, half a handshake message behind the handshake", false, true, func(c *occupier) { c.halfMessage("", 62<<10) }},
	{"993, half a small handshake message behind the handshake", false, true, func(c *occupier) { c.halfMessage("", 15<<10) }},
	{"993, half a handshake message behind half a SASL line", false, true, func(c *occupier) { c.halfMessage(halfSASL, 62<<10) }},
	{"993, half a small handshake message behind half a SASL line", false, true, func(c *occupier) { c.halfMessage(halfSASL, 15<<10) }},
	{"993, half a small handshake message behind a command line", false, true, func(c *occupier) { c.halfMessage(longLine[:50<<10], 15<<10) }},
	{"993, half a ClientHello", false, true, func(c *occupier) { c.halfHello(62 << 10) }},
	{"993, half a small ClientHello", false, true, func(c *occupier) { c.halfHello(15 << 10) }},
	{"993, a large ClientHello", false, true, func(c *occupier) { c.stall(large(60 << 10)) }},
	{"993, a ClientHello of 15 KiB", false, true, func(c *occupier) { c.stall(large(13 << 10)) }},
	{"993, a ClientHello of 7 KiB", false, true, func(c *occupier) { c.stall(large(6 << 10)) }},
	{"993, TLS done with a large ClientHello", false, true, func(c *occupier) { c.secure(large(60 << 10)) }},
	{"993, TLS done with a ClientHello of 15 KiB", false, true, func(c *occupier) { c.secure(large(13 << 10)) }},

	{"143, greeted", true, false, func(c *occupier) { c.line() }},
	{"143, half an ID", true, false, func(c *occupier) { c.line(); c.send(halfID) }},
	{"143, a SASL line", true, false, func(c *occupier) { c.line(); c.send("a AUTHENTICATE PLAIN " + saslLine) }},
	{"143, a command line", true, false, func(c *occupier) { c.line(); c.send(longLine) }},
	{"143, half a literal", true, false, func(c *occupier) { c.line(); c.send(halfLiteral) }},
	{"143, half a ClientHello", true, true, func(c *occupier) { c.startTLS(); c.halfHello(62 << 10) }},
	{"143, half a small ClientHello", true, true, func(c *occupier) { c.startTLS(); c.halfHello(15 << 10) }},
	{"143, a large ClientHello", true, true, func(c *occupier) { c.startTLS(); c.stall(large(60 << 10)) }},
	{"143, a ClientHello of 15 KiB", true, true, func(c *occupier) { c.startTLS(); c.stall(large(13 << 10)) }},
	{"143, a ClientHello of 7 KiB", true, true, func(c *occupier) { c.startTLS(); c.stall(large(6 << 10)) }},
	{"143, TLS done", true, false, func(c *occupier) {
		c.send(wholeID)
		c.line()
		c.line()
		c.startTLS()
		c.secure(small())
	}},
	{"143, half of a second SASL line over TLS", true, true, func(c *occupier) {
		c.startTLS()
		c.secure(small())
		c.send("a AUTHENTICATE LOGIN\r\n")
		c.line()
		c.send(saslLine + "\r\n")
		c.line()
		c.send(saslLine)
	}},
}

var (
	saslLine    = strings.Repeat("A", 16<<10)
	halfSASL    = "a AUTHENTICATE PLAIN\r\n" + saslLine
	longLine    = "a NOOP " + strings.Repeat("x", 64<<10-8)
	halfLiteral = "a ID (\"name\" {1024+}\r\n" + strings.Repeat("x", 512)
	wholeID     = "a ID (" + strings.TrimSpace(strings.Repeat(`"`+strings.Repeat("n", 30)+`" "`+strings.Repeat("v", 1024)+`" `, 30)) + ")\r\n"
	halfID      = strings.TrimSuffix(wholeID, "\")\r\n")
)

// Memory per hostile connection before login stays under 64 KiB, whatever it does.
func TestMemory(t *testing.T) {
	for _, p := range postures {
		t.Run(p.name, func(t *testing.T) {
			r := newRig(t)
			r.Policy = &policy.Gate{Limits: policy.Limits{ConnectionsBeforeLogin: 2 * memoryConnections}}
			r.Timeouts = Timeouts{Handshake: time.Hour, Command: time.Hour, Unauthenticated: time.Hour, Login: time.Hour, Write: time.Hour, Idle: time.Hour}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error)
			watched := &watchedListener{Listener: l}
			go func() { served <- r.Serve(Listener{Listener: watched, StartTLS: p.startTLS}) }()

			hold(t, r, watched, p, 1)() // what the first needs, later ones share
			before := inUse()
			release := hold(t, r, watched, p, memoryConnections)
			each := (inUse() - before) / memoryConnections
			release()
			t.Logf("%.1f KiB for each of %d connections", float64(each)/1024, memoryConnections)
			if each >= memoryBound {
				t.Errorf("%.1f KiB a connection, the bound is %d KiB", float64(each)/1024, memoryBound>>10)
			}
			r.end()
			if err := <-served; !errors.Is(err, ErrServerClosed) {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

// inUse is what lives on the heap and what stacks take. Pools are empty after two
// collections, and each halves the stacks that have become too large.
func inUse() int {
	for range 4 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// hold has n connections take the posture, in a process of their own so that their memory
// isn't counted, and returns when the server has read all that they sent and waits for more.
func hold(t *testing.T, r *rig, l *watchedListener, p posture, n int) (release func()) {
	t.Helper()
	l.forget()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %s", occupierVariable, l.Addr(), n, p.name))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	release = func() {
		t.Helper()
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("clients: %v", err)
		}
		await(t, func() (string, bool) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return fmt.Sprintf("%d sessions are left", len(r.sessions)), len(r.sessions) == 0
		})
	}
	for range n {
		var address string
		var sent int64
		if _, err := fmt.Fscan(stdout, &address, &sent); err != nil {
			release()
			t.Fatalf("clients: %v", err)
		}
		await(t, func() (string, bool) {
			state, settled := l.settled(address, sent, p.greedy)
			return fmt.Sprintf("%s: %s", address, state), settled
		})
	}
	return release
}

// await asks until something is so.
func await(t *testing.T, so func() (state string, yes bool)) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		state, yes := so()
		if yes {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(state)
		}
	}
}

// A watchedListener knows what its connections are doing, by the clients' addresses.
type watchedListener struct {
	net.Listener

	mu    sync.Mutex
	conns map[string]*watchedConn
}

func (l *watchedListener) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = make(map[string]*watchedConn)
}

func (l *watchedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &watchedConn{Conn: conn}
	l.conns[conn.RemoteAddr().String()] = c
	return c, nil
}

// settled says whether a session has read all that was sent and waits for more, or has
// ended where it may.
func (l *watchedListener) settled(address string, sent int64, mayEnd bool) (state string, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.conns[address]
	switch {
	case c == nil:
		return "not accepted", false
	case c.closed.Load():
		return "ended", mayEnd
	}
	read := c.read.Load()
	return fmt.Sprintf("%d of %d octets read", read, sent), read == sent && c.waiting.Load()
}

type watchedConn struct {
	net.Conn
	read            atomic.Int64
	waiting, closed atomic.Bool
}

func (c *watchedConn) Read(p []byte) (int, error) {
	c.waiting.Store(true)
	n, err := c.Conn.Read(p)
	c.waiting.Store(false)
	c.read.Add(int64(n))
	return n, err
}

func (c *watchedConn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

// occupierVariable in the environment makes this test program a crowd of clients: an
// address, how many, and the posture.
const occupierVariable = "IMAPWARDEN_TEST_OCCUPY"

func TestMain(m *testing.M) {
	if order := os.Getenv(occupierVariable); order != "" {
		if err := occupy(order); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	m.Run()
}

// occupy follows the order, says how many octets each connection has sent, and holds them
// until its input ends.
func occupy(order string) error {
	part := strings.SplitN(order, " ", 3)
	n, err := strconv.Atoi(part[1])
	if err != nil {
		return err
	}
	i := slices.IndexFunc(postures, func(p posture) bool { return p.name == part[2] })
	if i < 0 {
		return fmt.Errorf("no posture %q", part[2])
	}
	for range n {
		conn, err := net.Dial("tcp", part[0])
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute)) // who hangs should say so
		raw := &countedConn{Conn: conn}
		c := &occupier{raw: raw}
		c.over(raw)
		postures[i].take(c)
		if c.err != nil && !postures[i].greedy {
			return c.err
		}
		fmt.Println(conn.LocalAddr(), raw.sent.Load())
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

type countedConn struct {
	net.Conn
	sent atomic.Int64
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// An occupier is one hostile client. After an error it does nothing more.
type occupier struct {
	raw  net.Conn
	conn net.Conn // raw, or TLS over it
	in   *bufio.Reader
	err  error
}

func (c *occupier) over(conn net.Conn) { c.conn, c.in = conn, bufio.NewReader(conn) }

func (c *occupier) send(text string) {
	if c.err == nil {
		_, c.err = io.WriteString(c.conn, text)
	}
}

// line reads a line. Answers of more than one are read to the last by their caller.
func (c *occupier) line() {
	if c.err == nil {
		_, c.err = c.in.ReadString('\n')
	}
}

func (c *occupier) startTLS() {
	c.line()
	c.send("s STARTTLS\r\n")
	c.line()
}

// secure makes the handshake.
func (c *occupier) secure(config *tls.Config) {
	conn := tls.Client(c.raw, config)
	if c.err == nil {
		c.err = conn.Handshake()
	}
	c.over(conn)
}

// small and large are configurations by what the ClientHello takes.
func small() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true} // whole records of 16 KiB
}

func large(octets int) *tls.Config {
	config := small()
	config.NextProtos = []string{"imap"}
	for range octets / 251 {
		config.NextProtos = append(config.NextProtos, strings.Repeat("x", 250))
	}
	return config
}

// stall sends a whole ClientHello and not a word more.
func (c *occupier) stall(config *tls.Config) {
	asked := make(chan struct{})
	failed := make(chan error, 1)
	go func() { failed <- tls.Client(&mute{c.raw, asked}, config).Handshake() }()
	select {
	case <-asked:
	case c.err = <-failed:
	}
}

// A mute connection never has anything to read.
type mute struct {
	net.Conn
	asked chan struct{}
}

func (c *mute) Read([]byte) (int, error) {
	close(c.asked)
	select {}
}

// halfHello sends so many octets of the largest ClientHello that crypto/tls takes.
func (c *occupier) halfHello(octets int) {
	message := "\x01\x00\xff\xff" + strings.Repeat("x", octets)
	for len(message) > 0 {
		n := min(len(message), 16<<10)
		c.send("\x16\x03\x01" + string(binary.BigEndian.AppendUint16(nil, uint16(n))) + message[:n])
		message = message[n:]
	}
}

// halfMessage makes a TLS 1.3 handshake, says text, and then sends so many octets of a
// post-handshake message that is as large.
func (c *occupier) halfMessage(text string, octets int) {
	var keys bytes.Buffer
	config := small()
	config.KeyLogWriter = &keys
	c.secure(config)
	w := c.recordWriter(keys.String())
	w.send(23, text)
	w.send(22, "\x18\x00\xff\xff"+strings.Repeat("x", octets))
}

// A recordWriter encrypts TLS 1.3 records itself, for crypto/tls sends no broken ones (RFC
// 8446, section 5.2).
type recordWriter struct {
	*occupier
	aead   cipher.AEAD
	iv     []byte
	number byte
}

func (c *occupier) recordWriter(keyLog string) *recordWriter {
	w := &recordWriter{occupier: c}
	if c.err != nil {
		return w
	}
	_, after, _ := strings.Cut(keyLog, "CLIENT_TRAFFIC_SECRET_0 ")
	secret, err := hex.DecodeString(strings.Fields(after)[1])
	hash, size := sha256.New, 16
	switch c.conn.(*tls.Conn).ConnectionState().CipherSuite {
	case tls.TLS_AES_128_GCM_SHA256:
	case tls.TLS_AES_256_GCM_SHA384:
		hash, size = sha512.New384, 32
	default:
		err = errors.New("this machine has no AES in hardware, and the test no ChaCha20")
	}
	expand := func(label string, n int) []byte { // HKDF-Expand-Label, section 7.1
		label = "tls13 " + label
		key, expandErr := hkdf.Expand(hash, secret, string([]byte{0, byte(n), byte(len(label))})+label+"\x00", n)
		err = errors.Join(err, expandErr)
		return key
	}
	block, blockErr := aes.NewCipher(expand("key", size))
	if err = errors.Join(err, blockErr); err == nil {
		w.aead, err = cipher.NewGCM(block)
	}
	w.iv, c.err = expand("iv", 12), err
	return w
}

// send sends text as records of a type, each as large as may be.
func (w *recordWriter) send(kind byte, text string) {
	w.conn = w.raw
	for len(text) > 0 && w.err == nil {
		n := min(len(text), 16<<10)
		header := binary.BigEndian.AppendUint16([]byte("\x17\x03\x03"), uint16(n+1+w.aead.Overhead()))
		nonce := bytes.Clone(w.iv)
		nonce[11] ^= w.number
		w.occupier.send(string(w.aead.Seal(header, nonce, append([]byte(text[:n]), kind), header)))
		w.number, text = w.number+1, text[n:]
	}
}

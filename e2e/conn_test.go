package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2/imapclient"
)

// Networks that clients come from: each is a /24 of its own.
const (
	home      = "127.0.0.1"
	elsewhere = "127.0.9.1"
)

// A conn is an IMAP client that sends exactly the bytes it is told to.
type conn struct {
	t *testing.T
	net.Conn
	r    *bufio.Reader
	tags int
}

// A reply is what came for one command.
type reply struct {
	untagged []string // lines before it, without CRLF
	line     string   // the tagged line without tag and CRLF: "OK done"
}

// dial connects from the given address, without TLS, and reads the greeting.
func dial(t *testing.T, from, to string) *conn {
	t.Helper()
	c := newConn(t, dialTCP(t, from, to))
	c.greeting()
	return c
}

// dialTLS connects from the given address to an implicit TLS port and reads the greeting.
func dialTLS(t *testing.T, from, to string) *conn {
	t.Helper()
	c := newConn(t, tls.Client(dialTCP(t, from, to), shared.clients.believe()))
	c.greeting()
	return c
}

// dialClient is dialTLS for go-imap's client.
func dialClient(t *testing.T, from, to string) *imapclient.Client {
	t.Helper()
	c := imapclient.New(tls.Client(dialTCP(t, from, to), shared.clients.believe()), nil)
	t.Cleanup(func() { c.Close() })
	return c
}

func dialTCP(t *testing.T, from, to string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func newConn(t *testing.T, c net.Conn) *conn {
	return &conn{t: t, Conn: c, r: bufio.NewReader(c)}
}

func (c *conn) greeting() {
	c.t.Helper()
	if line := c.read(); !strings.HasPrefix(line, "* OK ") {
		c.t.Fatalf("greeting: %q", line)
	}
}

// upgrade runs STARTTLS.
func (c *conn) upgrade() {
	c.t.Helper()
	if r := c.do("STARTTLS"); !r.is("OK") {
		c.t.Fatalf("STARTTLS: %s", r.line)
	}
	c.handshake()
}

func (c *conn) handshake() {
	c.t.Helper()
	secure := tls.Client(c.Conn, shared.clients.believe())
	if err := secure.Handshake(); err != nil {
		c.t.Fatalf("TLS after STARTTLS: %v", err)
	}
	c.Conn, c.r = secure, bufio.NewReader(secure)
}

// send writes all of it at once.
func (c *conn) send(text string) {
	c.t.Helper()
	c.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.t.Fatalf("writing: %v", err)
	}
}

// read returns the next line without its CRLF.
func (c *conn) read() string {
	c.t.Helper()
	line, err := c.tryRead()
	if err != nil {
		c.t.Fatalf("reading: %v after %q", err, line)
	}
	return line
}

func (c *conn) tryRead() (string, error) {
	c.SetReadDeadline(time.Now().Add(patience))
	line, err := c.r.ReadString('\n')
	if err == nil && !strings.HasSuffix(line, "\r\n") {
		err = fmt.Errorf("line without CRLF")
	}
	return strings.TrimSuffix(line, "\r\n"), err
}

// do sends a command and returns its reply.
func (c *conn) do(command string) reply {
	c.t.Helper()
	tag := c.tag()
	c.send(tag + " " + command + "\r\n")
	return c.await(tag)
}

func (c *conn) tag() string {
	c.tags++
	return fmt.Sprintf("a%d", c.tags)
}

// await reads to the tagged line.
func (c *conn) await(tag string) (r reply) {
	c.t.Helper()
	for {
		line := c.read()
		if rest, ok := strings.CutPrefix(line, tag+" "); ok {
			r.line = rest
			return r
		}
		if strings.HasPrefix(line, "+ ") {
			c.t.Fatalf("a continuation request where the reply to %s belongs: %q", tag, line)
		}
		r.untagged = append(r.untagged, line)
	}
}

// more reads the continuation request and sends the answer to it.
func (c *conn) more(answer string) {
	c.t.Helper()
	if line := c.read(); !strings.HasPrefix(line, "+") {
		c.t.Fatalf("%q where a continuation request belongs", line)
	}
	c.send(answer + "\r\n")
}

// ended reads to the end of the connection and returns the lines before it.
// Any kind of end will do: what matters is that nothing else comes.
func (c *conn) ended() []string {
	c.t.Helper()
	var lines []string
	for {
		line, err := c.tryRead()
		if netErr, ok := err.(net.Error); ok && netErr.Timeout() {
			c.t.Fatalf("the connection doesn't end; so far %q", lines)
		}
		if err != nil {
			return lines
		}
		lines = append(lines, line)
	}
}

// is says whether the reply has that status, and that code where one is given: "NO [UNAVAILABLE]".
func (r reply) is(status string) bool { return strings.HasPrefix(r.line+" ", status+" ") }

// has says whether an untagged line begins so.
func (r reply) has(prefix string) bool {
	for _, line := range r.untagged {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

// A loginForm is one way to send the same credentials.
type loginForm func(c *conn, name, password string) reply

func loginQuoted(c *conn, name, password string) reply {
	return c.do("LOGIN " + quoted(name) + " " + quoted(password))
}

func loginAtoms(c *conn, name, password string) reply {
	return c.do("LOGIN " + name + " " + password)
}

func loginLiterals(c *conn, name, password string) reply {
	tag := c.tag()
	c.send(fmt.Sprintf("%s LOGIN {%d}\r\n", tag, len(name)))
	c.more(fmt.Sprintf("%s {%d}", name, len(password)))
	c.more(password)
	return c.await(tag)
}

func loginPlusLiterals(c *conn, name, password string) reply {
	return c.do(fmt.Sprintf("LOGIN {%d+}\r\n%s {%d+}\r\n%s", len(name), name, len(password), password))
}

func authPlain(c *conn, name, password string) reply {
	tag := c.tag()
	c.send(tag + " AUTHENTICATE PLAIN\r\n")
	c.more(known.add(sasl("\x00" + name + "\x00" + password)))
	return c.await(tag)
}

func authPlainInitial(c *conn, name, password string) reply {
	return c.do("AUTHENTICATE PLAIN " + known.add(sasl("\x00"+name+"\x00"+password)))
}

// authPlainSame sends the same name as authorization identity, as mbsync and neomutt do.
func authPlainSame(c *conn, name, password string) reply {
	return c.do("AUTHENTICATE PLAIN " + known.add(sasl(name+"\x00"+name+"\x00"+password)))
}

func authLogin(c *conn, name, password string) reply {
	tag := c.tag()
	c.send(tag + " AUTHENTICATE LOGIN\r\n")
	c.more(sasl(name))
	c.more(sasl(password))
	return c.await(tag)
}

func authLoginInitial(c *conn, name, password string) reply {
	tag := c.tag()
	c.send(tag + " AUTHENTICATE LOGIN " + sasl(name) + "\r\n")
	c.more(sasl(password))
	return c.await(tag)
}

// mustLogin logs in and fails the test where that is refused.
func (c *conn) mustLogin(name, password string) {
	c.t.Helper()
	if r := loginQuoted(c, name, password); !r.is("OK") {
		c.t.Fatalf("login: %s", r.line)
	}
}

// holdsMailOf checks that the connection reads the account's mail and no other's.
func (c *conn) holdsMailOf(a *account) {
	c.t.Helper()
	if r := c.do("SELECT INBOX"); !r.is("OK") {
		c.t.Fatalf("SELECT: %s", r.line)
	}
	r := c.do("FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]")
	if !r.is("OK") || !r.has("Subject: "+a.name) {
		c.t.Fatalf("FETCH: %s after %q", r.line, r.untagged)
	}
}

func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// sasl is a response on the wire.
func sasl(response string) string { return base64.StdEncoding.EncodeToString([]byte(response)) }

// tryLogin signs in on a connection of its own, as many may do at once and while the server
// is killed, and returns the tagged line without its tag.
func tryLogin(from, to, name, password string) (string, error) {
	d := tls.Dialer{
		NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}},
		Config:    shared.clients.believe(),
	}
	c, err := d.Dial("tcp", to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(c, "z LOGIN %s %s\r\n", quoted(name), quoted(password)); err != nil {
		return "", err
	}
	for lines := bufio.NewScanner(c); lines.Scan(); {
		if answer, ok := strings.CutPrefix(lines.Text(), "z "); ok {
			return answer, nil
		}
	}
	return "", io.ErrUnexpectedEOF
}

package proxy

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// A dialog is what an upstream says and hears, step by step. When it is over the upstream
// is silent until we hang up.
type dialog []step

// A step is one turn of the upstream. TAG in what it says is the tag of the command that
// it heard last; $PASSWORD and $PLAIN in what it wants to hear are the credentials.
type step struct {
	text  string                 // for names
	turns bool                   // the upstream's turn: a dialog may end before it
	play  func(h *hostile) error // errHungUp: the rest is not played
}

// hostile is the upstream's side of one connection.
type hostile struct {
	t        *testing.T
	password string
	conn     net.Conn
	in       *bufio.Reader
	tag      string

	// To be read when the connection is over.
	heard      bytes.Buffer // all that we sent, without TLS where it was TLS
	serverName string       // SNI
}

var errHungUp = errors.New("hung up")

// say sends lines, in one segment.
func say(lines ...string) step {
	return sayRaw(strings.Join(lines, "\r\n") + "\r\n")
}

func sayRaw(text string) step {
	name, _, _ := strings.Cut(text, "\r\n")
	return step{text: fmt.Sprintf("%.30s", name), turns: true, play: func(h *hostile) error {
		return h.send(text)
	}}
}

// sayAll sends the text so many times, each in a segment of its own.
func sayAll(n int, text string) step {
	return step{text: "flood", turns: true, play: func(h *hostile) error {
		for range n {
			if err := h.send(text); err != nil {
				return err
			}
		}
		return nil
	}}
}

// sayForEver sends the text again and again, after a pause each time.
func sayForEver(text string, pause time.Duration) step {
	return step{text: "endless", turns: true, play: func(h *hostile) error {
		for {
			time.Sleep(pause)
			if err := h.send(text); err != nil {
				return err
			}
		}
	}}
}

// literal is a literal that looks like a line. The response goes on behind it.
func literal(line string) string {
	octets := strings.ReplaceAll(line, "TAG", strings.Repeat("T", 9)) + "\r\n"
	return fmt.Sprintf("{%d}\r\n%s\r\n", len(octets), line) // send puts the tag in
}

// hear wants a command, given without its tag. One that ends in "..." is a beginning.
func hear(command string) step {
	return step{text: command, play: func(h *hostile) error {
		line := h.line(command)
		var got string
		h.tag, got, _ = strings.Cut(line, " ")
		return h.want(got, command)
	}}
}

// hearMore wants a line that continues a command.
func hearMore(text string) step {
	return step{text: text, play: func(h *hostile) error { return h.want(h.line(text), text) }}
}

// secureWith is the upstream's TLS handshake with the named certificate.
func secureWith(certificate string) step {
	return step{text: "TLS", turns: true, play: func(h *hostile) error {
		if h.in.Buffered() > 0 {
			h.t.Error("something was sent behind STARTTLS, before its answer")
		}
		conn := tls.Server(h.conn, &tls.Config{
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				h.serverName = hello.ServerName
				return &tls.Config{Certificates: []tls.Certificate{authority().pairs[certificate]}}, nil
			},
		})
		if conn.Handshake() != nil {
			return errHungUp
		}
		h.conn, h.in = conn, bufio.NewReader(io.TeeReader(conn, &h.heard))
		return nil
	}}
}

func wait(d time.Duration) step {
	return step{text: d.String(), play: func(*hostile) error { time.Sleep(d); return nil }}
}

// hangUp ends the connection without a word, TLS or not.
var hangUp = step{text: "closes", play: func(h *hostile) error {
	if c, ok := h.conn.(*tls.Conn); ok {
		h.conn = c.NetConn()
	}
	h.conn.Close()
	return errHungUp
}}

// play goes through the dialog, then waits until we hang up.
func (h *hostile) play(conn net.Conn, d dialog) {
	h.conn = newInbox(conn, &h.heard)
	h.in = bufio.NewReader(h.conn)
	defer conn.Close()
	for _, s := range d {
		if s.play(h) != nil {
			io.Copy(io.Discard, h.conn)
			return
		}
	}
	if more, _ := io.ReadAll(h.in); len(more) > 0 && more[0] != 0x16 { // a ClientHello
		h.t.Errorf("the upstream heard %q more", more)
	}
}

func (h *hostile) send(text string) error {
	if _, err := io.WriteString(h.conn, strings.ReplaceAll(text, "TAG", h.tag)); err != nil {
		return errHungUp
	}
	return nil
}

func (h *hostile) line(want string) string {
	line, err := h.in.ReadString('\n')
	if err != nil {
		h.t.Errorf("the upstream waits for %q: %q, %v", want, line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

func (h *hostile) want(got, want string) error {
	want = strings.NewReplacer("$PLAIN", encode("\x00alice\x00"+h.password), "$PASSWORD", h.password).Replace(want)
	beginning, open := strings.CutSuffix(want, "...")
	if got != want && (!open || !strings.HasPrefix(got, beginning)) {
		h.t.Errorf("the upstream heard %q, want %q", got, want)
		return errHungUp
	}
	return nil
}

// credentials is how often the password was sent, in any form.
func (h *hostile) credentials() int {
	heard := h.heard.String()
	n := strings.Count(heard, encode("\x00alice\x00"+h.password)) + strings.Count(heard, h.password)
	if quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(h.password); quoted != h.password {
		n += strings.Count(heard, quoted)
	}
	return n
}

// An inbox is a connection that takes in what is sent before it is read, as a socket does.
type inbox struct {
	net.Conn
	heard *bytes.Buffer
	in    chan []byte
	rest  []byte
}

func newInbox(conn net.Conn, heard *bytes.Buffer) *inbox {
	c := &inbox{Conn: conn, heard: heard, in: make(chan []byte, 1000)}
	go func() {
		defer close(c.in)
		for {
			b := make([]byte, 4096)
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			c.in <- b[:n]
		}
	}()
	return c
}

func (c *inbox) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		b, ok := <-c.in
		if !ok {
			return 0, io.EOF
		}
		c.heard.Write(b)
		c.rest = b
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// upstreamName is the name that the upstream is configured with.
const upstreamName = "imap.internal.example"

// An issuer is a private CA and the key pairs of upstreams, by what is wrong with them.
type issuer struct {
	pool  *x509.CertPool
	pairs map[string]tls.Certificate
}

// authority makes them for the year 2000, in which synctest's bubbles begin.
var authority = sync.OnceValue(func() issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	begin, end := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	certificate := func(template, parent *x509.Certificate) *x509.Certificate {
		template.SerialNumber = big.NewInt(1)
		if template.NotBefore = begin; template.NotAfter.IsZero() {
			template.NotAfter = end
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		if err != nil {
			panic(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			panic(err)
		}
		return c
	}
	root := func(name string) *x509.Certificate {
		c := &x509.Certificate{
			Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte(name),
		}
		return certificate(c, c)
	}
	ours, foreign := root("ours"), root("foreign")
	subject := pkix.Name{CommonName: upstreamName}
	self := &x509.Certificate{Subject: subject, DNSNames: []string{upstreamName}}
	i := issuer{pool: x509.NewCertPool(), pairs: map[string]tls.Certificate{}}
	i.pool.AddCert(ours)
	for name, c := range map[string]*x509.Certificate{
		"good":             certificate(&x509.Certificate{DNSNames: []string{upstreamName}}, ours),
		"expired":          certificate(&x509.Certificate{DNSNames: []string{upstreamName}, NotAfter: begin.AddDate(0, 6, 0)}, ours),
		"wrong name":       certificate(&x509.Certificate{Subject: subject, DNSNames: []string{"imap.other.example"}}, ours),
		"only common name": certificate(&x509.Certificate{Subject: subject}, ours),
		"unknown CA":       certificate(&x509.Certificate{DNSNames: []string{upstreamName}}, foreign),
		"self-signed":      certificate(self, self),
	} {
		i.pairs[name] = tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key}
	}
	return i
})

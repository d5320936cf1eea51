package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	goimap "github.com/emersion/go-imap/v2"

	"imapwarden/imap"
)

// An inquiry finds out what an IMAP server says of itself before anybody logs in. The server
// isn't trusted to be one: what it may send is bounded, and so is the time of each step. No
// secret is ever sent.
type inquiry struct {
	address    string         // host:port
	name       string         // that its certificate must have
	otherwise  string         // a second name that is as good
	roots      *x509.CertPool // nil: those that this machine believes
	way        string         // as upstream.tls has it; "": to be found out
	patience   time.Duration  // for each step
	dial       func(ctx context.Context, network, address string) (net.Conn, error)
	conn       net.Conn
	in         *bufio.Reader
	responses  *imap.ResponseReader
	tag        string
	seen       imap.Capabilities // the last list
	said       map[string]string // of itself, in answer to ID
	discovered *finding
}

// A finding is what is known of an upstream before login; as JSON its names are an interface.
type finding struct {
	Asked        string            `json:"asked"`              // host:port
	TLS          string            `json:"tls"`                // what it was asked with in the end: "implicit", "starttls" or "none"
	StartTLS     bool              `json:"starttls"`           // offered
	Trouble      string            `json:"starttls_problem"`   // why the offer can't be used
	Greeting     string            `json:"greeting"`           // its text
	Software     string            `json:"software"`           // by ID; "" where it doesn't say
	Version      string            `json:"version"`            // the same
	HasID        bool              `json:"has_id"`             // so that it can be told the client's address
	Plain        []string          `json:"capabilities_plain"` // before TLS; null where there is no such time
	Capabilities []string          `json:"capabilities"`       // before login, by the way in TLS
	Certificate  *seenCertificate  `json:"certificate"`        // null where there was no TLS
	OurAddress   netip.Addr        `json:"our_address"`        // from which we come to it
	SameMachine  bool              `json:"same_machine"`       // it is where we are
	Loopback     bool              `json:"loopback"`           // it was asked at
	plain        imap.Capabilities // as Plain
	secure       imap.Capabilities // as Capabilities
}

// A seenCertificate is the one that an upstream showed.
type seenCertificate struct {
	Names   []string  `json:"names"`
	Issuer  string    `json:"issuer"`
	Expires time.Time `json:"expires"`
	Name    string    `json:"valid_for"` // which of the names that we may call it by; "": none
	Problem string    `json:"problem"`   // why it isn't valid
	Version string    `json:"tls_version"`
}

// errOtherWay is a failure that the other way to begin, with or without TLS, may not have.
type errOtherWay struct{ error }

func (e errOtherWay) Unwrap() error { return e.error }

// ask finds out. Where the way isn't given, port 993 is taken for TLS first and all others
// for plaintext; who keeps silent or talks something else is asked the other way.
func (q *inquiry) ask(ctx context.Context) (*finding, error) {
	first, second := false, true
	if _, port, _ := net.SplitHostPort(q.address); port == "993" {
		first, second = true, false
	}
	if q.way != "" {
		return q.askWith(ctx, q.way == "implicit")
	}
	found, err := q.askWith(ctx, first)
	if _, ok := errors.AsType[errOtherWay](err); !ok {
		return found, err
	}
	found, err2 := q.askWith(ctx, second)
	if _, ok := errors.AsType[errOtherWay](err2); !ok {
		return found, err2
	}
	words := map[bool]string{true: "with TLS", false: "in plaintext"}
	return nil, fmt.Errorf("no IMAP server answers: %s: %w; %s: %w", words[first], err, words[second], err2)
}

func (q *inquiry) askWith(ctx context.Context, implicit bool) (*finding, error) {
	dialing, cancel := context.WithTimeout(ctx, q.patience)
	defer cancel()
	conn, err := q.dial(dialing, "tcp", q.address)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	q.conn, q.in, q.seen, q.said, q.tag = conn, nil, nil, nil, rand.Text()[:8]
	q.discovered = &finding{Asked: q.address, TLS: "none"}
	q.place(conn)
	if err := q.converse(implicit); err != nil {
		return nil, errors.Join(context.Cause(ctx), err)
	}
	return q.discovered, nil
}

// place notes from where we come. A server that sees its own address is on this machine.
func (q *inquiry) place(conn net.Conn) {
	ours, err := netip.ParseAddrPort(conn.LocalAddr().String())
	theirs, err2 := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil || err2 != nil {
		return
	}
	f := q.discovered
	f.OurAddress = ours.Addr().Unmap().WithZone("")
	f.Loopback = theirs.Addr().Unmap().IsLoopback()
	f.SameMachine = f.Loopback || ours.Addr() == theirs.Addr()
}

func (q *inquiry) converse(implicit bool) error {
	f := q.discovered
	if implicit {
		if err := q.handshake(); err != nil {
			return errOtherWay{err}
		}
		f.TLS = "implicit"
	}
	if err := q.greeting(); err != nil {
		return err
	}
	if err := q.capabilities(); err != nil {
		return err
	}
	if !implicit {
		f.plain, f.Plain = q.seen, words(q.seen)
		f.StartTLS = q.seen.Has(goimap.CapStartTLS)
		if f.StartTLS && q.way != "none" {
			if err := q.startTLS(); err != nil {
				f.Trouble = clean(err.Error(), 300)
				return nil // what was said so far is enough for plaintext
			}
			f.TLS = "starttls"
		}
	}
	f.secure, f.Capabilities = q.seen, words(q.seen)
	if f.HasID = q.seen.Has(goimap.CapID); f.HasID {
		return q.identify()
	}
	return nil
}

// begin allots a step's time, and what may be sent in it.
func (q *inquiry) begin(lines, octets int) {
	q.conn.SetDeadline(time.Now().Add(q.patience))
	if q.in == nil {
		q.in = bufio.NewReader(q.conn)
	}
	q.responses = &imap.ResponseReader{R: q.in, Lines: lines, Octets: octets}
}

func (q *inquiry) greeting() error {
	q.begin(1, imap.MaxGreeting)
	r, err := q.responses.Next()
	switch {
	case err != nil:
		return errOtherWay{fmt.Errorf("waiting for its greeting: %w", err)}
	case r.Tag == "*" && r.Type == goimap.StatusResponseTypePreAuth:
		return errors.New("it greets with PREAUTH: whoever connects is logged in already, and no password is asked for; imapwarden can't protect that")
	case r.Tag == "*" && r.Type == goimap.StatusResponseTypeBye:
		return fmt.Errorf("it says BYE instead of a greeting: %s", clean(r.Text, 200))
	case r.Tag != "*" || r.Type != goimap.StatusResponseTypeOK:
		return errOtherWay{errors.New("what it greets with isn't IMAP")}
	}
	q.discovered.Greeting = clean(r.Text, 200)
	q.seen = r.Capabilities()
	return nil
}

// capabilities asks for them, where the server hasn't told them by itself.
func (q *inquiry) capabilities() error {
	if q.seen != nil {
		return nil
	}
	t, err := q.command("CAPABILITY")
	if err == nil && (t != goimap.StatusResponseTypeOK || q.seen == nil) {
		err = errors.New("it doesn't tell its capabilities")
	}
	return err
}

// startTLS is RFC 9051, section 6.2.1. Nothing that was said before it counts afterwards.
func (q *inquiry) startTLS() error {
	t, err := q.command("STARTTLS")
	switch {
	case err != nil:
		return err
	case t != goimap.StatusResponseTypeOK:
		return fmt.Errorf("it answers STARTTLS with %s", t)
	case q.in.Buffered() > 0: // CVE-2021-38084 and the like
		return errors.New("it sends octets behind its OK to STARTTLS: somebody may be injecting them")
	}
	if err := q.handshake(); err != nil {
		return err
	}
	return q.capabilities()
}

// handshake takes any certificate, to be able to say what is wrong with it. Nothing depends
// on the server's being the right one until login, and it is verified there.
func (q *inquiry) handshake() error {
	q.conn.SetDeadline(time.Now().Add(q.patience))
	c := tls.Client(q.conn, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: q.name, InsecureSkipVerify: true})
	if err := c.Handshake(); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	q.conn, q.in, q.seen = c, nil, nil
	q.discovered.Certificate = q.judge(c.ConnectionState())
	return nil
}

func (q *inquiry) judge(state tls.ConnectionState) *seenCertificate {
	leaf := state.PeerCertificates[0]
	seen := &seenCertificate{
		Issuer:  clean(leaf.Issuer.String(), 200),
		Expires: leaf.NotAfter.UTC(),
		Version: tls.VersionName(state.Version),
	}
	for _, name := range leaf.DNSNames[:min(len(leaf.DNSNames), 10)] {
		seen.Names = append(seen.Names, clean(name, 100))
	}
	for _, ip := range leaf.IPAddresses[:min(len(leaf.IPAddresses), 10)] {
		seen.Names = append(seen.Names, ip.String())
	}
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	for _, name := range []string{q.name, q.otherwise} {
		if name == "" {
			continue
		}
		_, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: q.roots, Intermediates: between})
		if err == nil {
			seen.Name, seen.Problem = name, ""
			break
		}
		if seen.Problem == "" {
			seen.Problem = clean(strings.TrimPrefix(err.Error(), "x509: "), 300)
		}
	}
	return seen
}

// identify asks by ID (RFC 2971) what it is. No answer to that is an answer, too.
func (q *inquiry) identify() error {
	if _, err := q.command(`ID ("name" "imapwarden")`); err != nil {
		return err
	}
	q.discovered.Software, q.discovered.Version = q.said["name"], q.said["version"]
	return nil
}

// command sends one and returns what its tagged response says.
func (q *inquiry) command(line string) (goimap.StatusResponseType, error) {
	q.begin(imap.MaxUntaggedLines, imap.MaxUntaggedOctets)
	if _, err := q.conn.Write([]byte(q.tag + " " + line + "\r\n")); err != nil {
		return "", fmt.Errorf("sending a command: %w", err)
	}
	for {
		r, err := q.responses.Next()
		if err != nil {
			return "", fmt.Errorf("waiting for its answer to %s: %w", strings.Fields(line)[0], err)
		}
		if list := r.Capabilities(); list != nil {
			q.seen = list
		}
		switch word, _, _ := strings.Cut(r.Text, " "); {
		case r.Tag == q.tag && r.Type != "":
			return r.Type, nil
		case r.Tag == "*" && r.Type == goimap.StatusResponseTypeBye:
			return "", fmt.Errorf("it says BYE: %s", clean(r.Text, 200))
		case r.Tag != "*":
			return "", errors.New("it sends an answer to nothing that we asked")
		case r.Type == "" && strings.EqualFold(word, "ID"):
			q.said = readID(q.responses.Raw)
		}
	}
}

// readID takes an ID response apart, which has a command's form behind its name. What isn't
// readable says nothing.
func readID(response []byte) map[string]string {
	d := imap.NewDecoder(bytes.NewReader(response[len("* ID"):]))
	d.Continue = func() error { return nil } // a literal is there already
	if d.Await() != nil {
		return nil
	}
	said, err := d.ID(100, "name", "version")
	if err != nil {
		return nil
	}
	for name, value := range said {
		said[name] = clean(value, 100)
	}
	return said
}

// words is a list of capabilities, fit for a terminal.
func words(list imap.Capabilities) []string {
	out := make([]string, 0, min(len(list), 100))
	for _, c := range list[:min(len(list), 100)] {
		out = append(out, clean(string(c), 60))
	}
	return out
}

// clean is text from outside, fit for a terminal and of at most so many octets.
func clean(s string, most int) string {
	return printable(strings.ToValidUTF8(s[:min(len(s), most)], "?"))
}

// canLogIn says whether the password can be handed over, as proxy does it.
func canLogIn(list imap.Capabilities) bool {
	return list.Has(goimap.AuthCap("PLAIN")) || !list.Has(goimap.CapLoginDisabled)
}

// splitPort takes a host:port apart; the port is a number.
func splitPort(address string) (host string, port int, err error) {
	host, number, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	p, err := strconv.ParseUint(number, 10, 16)
	if err != nil || p == 0 || host == "" {
		return "", 0, fmt.Errorf("%q isn't a host and a port as a number", address)
	}
	return host, int(p), nil
}

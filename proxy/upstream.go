package proxy

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	goimap "github.com/emersion/go-imap/v2"

	"imapwarden/auth"
	"imapwarden/imap"
	"imapwarden/metrics"
	"imapwarden/relay"
)

// UpstreamTLS is how the way to an upstream is secured.
type UpstreamTLS string

// The ways. Nothing but UpstreamPlain sends a password without TLS.
const (
	UpstreamStartTLS UpstreamTLS = "starttls"
	UpstreamImplicit UpstreamTLS = "implicit"
	UpstreamPlain    UpstreamTLS = "none"
)

// Forward is how an upstream is told the client's address.
type Forward string

// The ways; any other value is ForwardOff.
const (
	ForwardID    Forward = "id"       // in the first ID, as Dovecot's proxy does
	ForwardProxy Forward = "proxy-v2" // in a PROXY header, before all else
	ForwardOff   Forward = "off"
)

// An Upstream is an IMAP server behind us. Fields are not changed after the first login.
type Upstream struct {
	Name      string
	Address   string // host:port
	TLS       UpstreamTLS
	TLSConfig *tls.Config // with ServerName; unused for UpstreamPlain
	Forward   Forward
	Master    *Master // opens every mailbox, for those who proved an app password; nil: there is none
	Dial      func(ctx context.Context, network, address string) (net.Conn, error)

	pace pace
}

// A Master is a user of the upstream who may log in as any account.
type Master struct {
	User      string
	Password  auth.Secret
	Separator string // logs in as ACCOUNT Separator User; "": the account is the authorization identity (RFC 4616)
}

// A backend is an upstream connection on which the account is logged in.
type backend struct {
	name         string
	side         relay.Side // its First came behind the OK: the session's
	capabilities imap.Capabilities
	text         string // of the OK
}

// close ends it before it is relayed.
func (b *backend) close() {
	if b.side.TLS != nil {
		b.side.TLS.Close()
		return
	}
	b.side.Socket.Close()
}

// identity is for whom we log in and from where they come.
type identity struct {
	account  string
	password auth.Secret
	master   bool // log in as the master user, without the account's password
	client   netip.AddrPort
	local    netip.AddrPort
	session  string
	id       map[string]string // what the client said of itself
}

// An answer is what an upstream made of a password.
type answer uint8

const (
	answerUnknown answer = iota // we couldn't tell: unavailable, never a yes
	answerNo                    // the password is wrong
	answerYes
)

// login connects and logs in. It asks once, whatever the answer, and only where TLS is as
// it was configured. The error says what failed where the answer is unknown.
func (u *Upstream) login(ctx context.Context, who identity, m *metrics.Metrics) (*backend, answer, error) {
	conn, err := u.Dial(ctx, "tcp", u.Address)
	if err != nil {
		m.UpstreamFailed(metrics.Dial)
		return nil, answerUnknown, fmt.Errorf("upstream %s: connecting: %w", u.Name, err)
	}
	socket := &relay.Socket{Conn: conn}
	d := &upstreamDialog{upstream: u, socket: socket, conn: socket, tagPrefix: rand.Text()[:8]}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	b, reply, err := d.login(who)
	if !stop() && err == nil {
		err = fmt.Errorf("upstream %s: %w", u.Name, context.Cause(ctx)) // its deadline may be past
		reply = answerUnknown
	}
	if err == nil && reply == answerYes {
		conn.SetDeadline(time.Time{})
		return b, reply, nil
	}
	conn.Close()
	if err != nil {
		m.UpstreamFailed(d.step)
		return nil, answerUnknown, fmt.Errorf("upstream %s: %w", u.Name, err)
	}
	return nil, answerNo, nil
}

// upstreamDialog is our side of the conversation until the account is logged in.
type upstreamDialog struct {
	upstream  *Upstream
	socket    *relay.Socket
	tls       *tls.Conn // nil: none yet
	conn      net.Conn  // the one or the other
	in        *bufio.Reader
	responses *imap.ResponseReader
	step      metrics.Step
	tagPrefix string // unguessable: an injected answer can't match it
	tagCount  int
	seen      imap.Capabilities // the last list that the upstream sent
	loggedIn  bool
	first     []byte // what came after the login and isn't ours
}

var (
	errGreeting  = errors.New("unexpected greeting")
	errPreAuth   = errors.New("it greets with PREAUTH: whoever connects is logged in already")
	errNoTLS     = errors.New("it doesn't offer STARTTLS")
	errInjected  = errors.New("it sent octets behind its OK to STARTTLS: somebody may be injecting them")
	errMechanism = errors.New("it offers neither AUTH=PLAIN nor LOGIN")
	errMaster    = errors.New("it doesn't offer AUTH=PLAIN, which a master user of style authzid needs")
	errBye       = errors.New("it said BYE")
)

// login takes the steps of RFC 9051, sections 7.1.4, 6.2.1 and 6.2.2, in their order.
func (d *upstreamDialog) login(who identity) (*backend, answer, error) {
	if d.upstream.Forward == ForwardProxy {
		d.step = metrics.Dial
		if err := announce(d.conn, who.client, who.local); err != nil {
			return nil, answerUnknown, err
		}
	}
	d.step = metrics.TLS
	if d.upstream.TLS == UpstreamImplicit {
		if err := d.handshake(); err != nil {
			return nil, answerUnknown, err
		}
	}
	d.step = metrics.Greeting
	if err := d.greeting(); err != nil {
		return nil, answerUnknown, err
	}
	if d.upstream.TLS == UpstreamStartTLS {
		d.step = metrics.TLS
		if err := d.startTLS(); err != nil {
			return nil, answerUnknown, err
		}
	}
	d.step = metrics.Login
	if d.seen == nil {
		if err := d.askCapabilities(); err != nil {
			return nil, answerUnknown, err
		}
	}
	if err := d.identify(who); err != nil {
		return nil, answerUnknown, err
	}
	return d.authenticate(who)
}

func (d *upstreamDialog) handshake() error {
	c := tls.Client(d.conn, d.upstream.TLSConfig)
	if err := c.Handshake(); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	d.conn, d.tls, d.in, d.seen = c, c, nil, nil
	return nil
}

// budget begins a new reader's bounds; what was read ahead stays.
func (d *upstreamDialog) budget(lines, octets int) {
	if d.in == nil {
		d.in = bufio.NewReaderSize(d.conn, 4096)
	}
	d.responses = &imap.ResponseReader{R: d.in, Lines: lines, Octets: octets}
}

func (d *upstreamDialog) greeting() error {
	d.budget(1, imap.MaxGreeting)
	r, err := d.responses.Next()
	switch {
	case err != nil:
		return fmt.Errorf("waiting for its greeting: %w", err)
	case r.Tag == "*" && r.Type == goimap.StatusResponseTypePreAuth:
		return errPreAuth
	case r.Tag == "*" && r.Type == goimap.StatusResponseTypeBye:
		return errBye
	case r.Tag != "*" || r.Type != goimap.StatusResponseTypeOK:
		return errGreeting
	}
	d.seen = r.Capabilities()
	d.budget(imap.MaxUntaggedLines, imap.MaxUntaggedOctets)
	return nil
}

// startTLS demands TLS. Nothing that was said before it counts afterwards.
func (d *upstreamDialog) startTLS() error {
	if d.seen == nil {
		if err := d.askCapabilities(); err != nil {
			return err
		}
	}
	if !d.seen.Has(goimap.CapStartTLS) {
		return errNoTLS
	}
	r, err := d.command("STARTTLS")
	if err != nil {
		return err
	}
	if r.Type != goimap.StatusResponseTypeOK {
		return fmt.Errorf("it answers STARTTLS with %s", r.Type)
	}
	if d.in.Buffered() > 0 { // CVE-2021-38084 and the like
		return errInjected
	}
	if err := d.handshake(); err != nil {
		return err
	}
	d.budget(imap.MaxUntaggedLines, imap.MaxUntaggedOctets)
	return nil
}

func (d *upstreamDialog) askCapabilities() error {
	r, err := d.command("CAPABILITY")
	if err == nil && (r.Type != goimap.StatusResponseTypeOK || d.seen == nil) {
		err = errors.New("it doesn't tell its capabilities")
	}
	return err
}

// identify sends ID before anything else that the upstream may log (RFC 2971). Dovecot
// takes the client's address from it, where we are in its login_trusted_networks.
func (d *upstreamDialog) identify(who identity) error {
	if !d.seen.Has(goimap.CapID) {
		return nil
	}
	var fields []string
	add := func(name, value string) {
		if q, ok := imap.Quote([]byte(value)); ok && value != "" {
			fields = append(fields, `"`+name+`" `+string(q))
		}
	}
	if d.upstream.Forward == ForwardID && who.client.IsValid() {
		add("x-originating-ip", who.client.Addr().String())
		add("x-originating-port", strconv.Itoa(int(who.client.Port())))
		add("x-connected-ip", who.local.Addr().String())
		add("x-connected-port", strconv.Itoa(int(who.local.Port())))
		add("x-proxy-ttl", "4")
		add("x-session-id", who.session)
	}
	for _, name := range wantedID {
		add(name, who.id[name])
	}
	if len(fields) == 0 {
		return nil
	}
	_, err := d.command("ID (" + strings.Join(fields, " ") + ")") // whatever it says of that
	return err
}

// authenticate presents the password, encoded anew by us: nothing that the client sent
// reaches the upstream as it was.
func (d *upstreamDialog) authenticate(who identity) (*backend, answer, error) {
	r, err := d.present(who)
	if err != nil {
		return nil, answerUnknown, err
	}
	switch no := r.Type == goimap.StatusResponseTypeNo; {
	case no && who.master: // our trouble, and nobody's guess
		return nil, answerUnknown, fmt.Errorf("it refuses the master user %q [%s]: "+
			"see master.password_file, from where it may come, and whether it knows the account", d.upstream.Master.User, r.Code)
	case no && isWrongPassword(r.Code):
		return nil, answerNo, nil
	case r.Type != goimap.StatusResponseTypeOK:
		return nil, answerUnknown, fmt.Errorf("it answers the login with %s [%s]", r.Type, r.Code)
	}
	return d.attached(r)
}

// isWrongPassword says whether a NO with this code (RFC 5530) is about the password.
func isWrongPassword(code goimap.ResponseCode) bool {
	switch code {
	case goimap.ResponseCodeUnavailable, goimap.ResponseCodeInUse, goimap.ResponseCodeLimit,
		goimap.ResponseCodeServerBug, goimap.ResponseCodeContactAdmin:
		return false
	}
	return true
}

// present is AUTHENTICATE PLAIN where it is offered, else LOGIN.
func (d *upstreamDialog) present(who identity) (imap.Response, error) {
	before := d.seen
	d.seen = nil // what it sends from here on counts for after the login
	authzid, username, password := "", who.account, who.password
	if m := d.upstream.Master; who.master {
		password = m.Password
		if authzid, username = who.account, m.User; m.Separator != "" {
			authzid, username = "", who.account+m.Separator+m.User
		}
	}
	switch {
	case before.Has(goimap.AuthCap("PLAIN")):
		message := imap.EncodePlain(authzid, username, password)
		defer clear(message)
		if before.Has(goimap.CapSASLIR) {
			return d.secretCommand("AUTHENTICATE PLAIN ", message)
		}
		return d.command("AUTHENTICATE PLAIN", message)
	case authzid != "":
		return imap.Response{}, errMaster
	case !before.Has(goimap.CapLoginDisabled):
		return d.loginCommand(username, password)
	}
	return imap.Response{}, errMechanism
}

// loginCommand is LOGIN with quoted strings where they fit, else with literals that wait
// for the upstream's invitation.
func (d *upstreamDialog) loginCommand(username string, password auth.Secret) (imap.Response, error) {
	line := []byte("LOGIN")
	var parts [][]byte
	for _, argument := range [][]byte{[]byte(username), password} {
		line = append(line, ' ')
		if q, ok := imap.Quote(argument); ok {
			line = append(line, q...)
			continue
		}
		line = fmt.Appendf(line, "{%d}", len(argument))
		parts, line = append(parts, line), argument
		line = line[:len(line):len(line)]
	}
	parts = append(parts, line)
	return d.command(string(parts[0]), parts[1:]...)
}

// attached takes over a connection whose login was accepted.
func (d *upstreamDialog) attached(r imap.Response) (*backend, answer, error) {
	if d.loggedIn = true; d.seen == nil {
		if err := d.askCapabilities(); err != nil {
			return nil, answerUnknown, err
		}
	}
	first, _ := d.in.Peek(d.in.Buffered())
	text := imap.Printable(r.Text)
	if text == "" || r.Code != "" && r.Code != "CAPABILITY" { // an ALERT or REFERRAL isn't passed on
		text = "Logged in"
	}
	return &backend{
		name: d.upstream.Name, side: relay.Side{Socket: d.socket, TLS: d.tls, First: append(d.first, first...)},
		capabilities: d.seen, text: text,
	}, answerYes, nil
}

// secretCommand is a command whose end mustn't stay in memory.
func (d *upstreamDialog) secretCommand(name string, secret []byte) (imap.Response, error) {
	line := append([]byte(name), secret...)
	defer clear(line)
	return d.exchange(line, nil)
}

// command sends a command and returns its tagged response. Each continuation that the
// upstream asks for gets the next of the parts.
func (d *upstreamDialog) command(line string, parts ...[]byte) (imap.Response, error) {
	return d.exchange([]byte(line), parts)
}

func (d *upstreamDialog) exchange(line []byte, parts [][]byte) (imap.Response, error) {
	d.tagCount++
	tag := d.tagPrefix + strconv.Itoa(d.tagCount)
	if err := d.send([]byte(tag+" "), line); err != nil {
		return imap.Response{}, err
	}
	for {
		r, err := d.responses.Next()
		if err != nil {
			return r, fmt.Errorf("waiting for its answer: %w", err)
		}
		if list := r.Capabilities(); list != nil {
			d.seen = list
		}
		switch {
		case r.Tag == tag && r.Type != "" && len(parts) > 0: // a yes would be no word on the password either
			return r, fmt.Errorf("it answers %s [%s] before it has the password", r.Type, r.Code)
		case r.Tag == tag && r.Type != "":
			return r, nil
		case r.Tag == "+" && len(parts) > 0:
			if err := d.send(nil, parts[0]); err != nil {
				return imap.Response{}, err
			}
			parts = parts[1:]
		case r.Tag == "*" && r.Type == goimap.StatusResponseTypeBye:
			return r, errBye
		case r.Tag != "*":
			return r, errors.New("it sends an answer to nothing that we asked")
		case d.loggedIn && r.Capabilities() == nil:
			d.first = append(d.first, d.responses.Raw...)
		}
	}
}

func (d *upstreamDialog) send(prefix, line []byte) error {
	b := append(append(append(make([]byte, 0, len(prefix)+len(line)+2), prefix...), line...), "\r\n"...)
	_, err := d.conn.Write(b)
	clear(b)
	if err != nil {
		return fmt.Errorf("sending a command: %w", err)
	}
	return nil
}

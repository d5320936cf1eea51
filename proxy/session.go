package proxy

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"imapwarden/audit"
	"imapwarden/imap"
	"imapwarden/policy"
	"imapwarden/relay"
)

// A session is one client connection, from accept to close.
type session struct {
	server   *Server
	id       string
	listener Listener
	peer     netip.AddrPort // where the client connects from
	client   netip.AddrPort // the same, but for a webmail host's users: where these are
	local    netip.AddrPort // and to
	started  time.Time

	socket  *relay.Socket // what deadlines are set on
	conn    net.Conn      // what is read and written before the relay: socket, or TLS over it
	tls     *tls.Conn     // nil: conn isn't TLS
	below   *frugal       // what TLS reads from
	secure  bool          // conn is TLS
	version uint16        // of TLS

	tlsClient []byte // the id of the TLS client; nil: it can't be told
	in        *imap.Decoder

	clientID map[string]string // what the client said of itself with ID (RFC 2971), cut short
	commands int               // read so far

	hasIntroduced bool // by an ID after login

	bad      int // of these, broken or out of place
	refusals int // attempts that were refused

	beforeLogin *policy.Slot
	afterLogin  *policy.Slot
	attempt     *attempt // the newest
	login       *attempt // the one that was accepted; set under mu
	upstream    *backend // nil until then; set under mu
	relayed     relay.Session

	ctx    context.Context // ends when the session is interrupted or cut
	cancel context.CancelFunc

	mu          sync.Mutex
	said        string // what the program says that it is
	interrupted bool   // before login: the server is shutting down
	relaying    bool   // relayed has the sockets
	reason      end    // why it was cut from outside
}

func newSession(server *Server, conn net.Conn, l Listener) *session {
	s := &session{
		server:   server,
		id:       rand.Text()[:16],
		listener: l,
		peer:     address(conn.RemoteAddr()),
		client:   address(conn.RemoteAddr()),
		local:    address(conn.LocalAddr()),
		started:  time.Now(),
		socket:   &relay.Socket{Conn: conn},
	}
	s.conn = s.socket
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// run is the story of a session. A panic ends this one only.
func (s *session) run() {
	var err error
	defer func() {
		if v := recover(); v != nil {
			err = s.broken(v, debug.Stack())
		}
		if err != nil {
			s.finish(err)
		}
	}()

	s.server.Metrics.Accepted.Inc()
	if err = s.locate(); err != nil {
		return
	}
	if err = s.admit(); err != nil {
		return
	}
	if err = s.secureFirst(); err != nil {
		return
	}
	if err = s.greet(); err != nil {
		return
	}
	for s.upstream == nil {
		if err = s.ask(); err != nil {
			return
		}
		if a := s.attempt; s.decide(a) && s.connect(a) {
			err = s.welcome(a)
		} else {
			err = s.refuse(a)
		}
		if err != nil {
			return
		}
	}
	s.relay() // which finishes it when it is over
}

// admit asks policy for a place before anything costly is done for a stranger.
func (s *session) admit() error {
	decision, slot := s.server.Policy.Admit(s.client.Addr())
	if !decision.Allowed {
		s.server.Metrics.Limited(decision.Signal)
		return endLimited
	}
	s.beforeLogin = slot
	s.server.Metrics.BeforeLogin.Inc()
	return nil
}

// secureFirst begins TLS where the listener has it from the first octet.
func (s *session) secureFirst() error {
	if s.listener.StartTLS {
		return nil
	}
	return s.secureOver(s.conn)
}

// acmeProtocol is what a CA speaks that asks for a challenge's answer: the handshake is all of it (RFC 8737, section 3).
const acmeProtocol = "acme-tls/1"

// secureOver makes the handshake. Nothing that was said before it counts afterwards
// (RFC 9051, section 6.2.1): the reader is new, and so is everything that was counted.
func (s *session) secureOver(conn net.Conn) error {
	s.deadline(s.server.Timeouts.Handshake)
	below := &frugal{Conn: conn, left: maxHandshake}
	config, client := s.server.TLS, new(tlsClient)
	if s.server.Auth.Grant.ForClients() && !s.server.isWebmail(s.peer.Addr()) {
		r := s.server.recognizer()
		defer s.server.recognizers.Put(r)
		r.client = client
		config = r.config
	}
	tlsConn := tls.Server(below, config)
	if err := tlsConn.Handshake(); err != nil {
		s.server.Metrics.HandshakeFailed.Inc()
		s.server.Log.Debug("TLS handshake failed", zap.String("session", s.id), zap.Stringer("source", s.client.Addr()), zap.Error(err))
		return endHandshake
	}
	if tlsConn.ConnectionState().NegotiatedProtocol == acmeProtocol {
		return endChallenge
	}
	below.left = maxRecord
	s.conn, s.tls, s.below, s.secure, s.version = tlsConn, tlsConn, below, true, tlsConn.ConnectionState().Version
	s.tlsClient = client.known(tlsConn.ConnectionState().DidResume)
	s.in, s.clientID, s.commands, s.bad = nil, nil, 0, 0
	return nil
}

// greet says who we are: our own words, for no upstream is attached yet.
func (s *session) greet() error {
	return s.write(fmt.Sprintf("* OK [CAPABILITY %s] %s IMAP service ready\r\n", s.capabilities(), s.server.Hostname))
}

// welcome tells the client that it is logged in, with what the upstream can do.
func (s *session) welcome(a *attempt) error {
	s.server.Route(a.account).pace.noteYes(a.took)
	a.conclude()
	a.trial.Release()
	s.server.Metrics.BeforeLogin.Dec()
	s.server.Metrics.Relaying.Inc()
	s.beforeLogin.Release()
	code := ""
	if list := s.upstream.capabilities.AfterLogin(); len(list) > 0 {
		code = fmt.Sprintf("[CAPABILITY %s] ", list)
	}
	return s.write(fmt.Sprintf("%s OK %s%s\r\n", a.tag, code, s.upstream.text))
}

// broken tells of a bug.
func (s *session) broken(panicked any, stack []byte) error {
	s.server.Log.Error("session broken, this is a bug", zap.String("session", s.id),
		zap.Any("panic", panicked), zap.ByteString("stack", stack))
	return endBroken
}

// finish closes both sides and says once how it ended.
func (s *session) finish(err error) {
	defer s.server.forget(s)
	why := s.ended(err)
	if err == endBroken {
		why = endBroken
	}
	s.cancel()
	if !s.relaying { // else both are closed
		s.conn.Close()
		s.socket.Close()
		if s.upstream != nil {
			s.upstream.close()
		}
	}
	if s.attempt != nil && !s.attempt.concluded { // only after a panic
		s.attempt.outcome = audit.Failed
		s.attempt.conclude()
	}
	if s.attempt != nil {
		s.attempt.trial.Release()
	}
	if s.login != nil {
		s.server.Auth.SessionEnded(s.login.verdict)
	}
	if s.upstream != nil {
		s.server.Metrics.Relaying.Dec()
	} else if s.beforeLogin != nil {
		s.server.Metrics.BeforeLogin.Dec()
	}
	s.beforeLogin.Release()
	s.afterLogin.Release()
	s.server.Metrics.FromClient.Add(float64(s.relayed.FromClient.Load()))
	s.server.Metrics.ToClient.Add(float64(s.relayed.ToClient.Load()))
	if s.attempt == nil {
		s.server.strangers().Info("session without a login", s.summary(why)...)
		return
	}
	s.server.Log.Info("session", s.summary(why)...)
}

func (s *session) summary(why end) []zap.Field {
	fields := []zap.Field{
		zap.String("session", s.id),
		zap.Stringer("source", s.client.Addr()),
		zap.String("end", string(why)),
		zap.Duration("duration", time.Since(s.started)),
		zap.Int("refusals", s.refusals),
		zap.String("tls", s.tlsVersion()),
	}
	if s.peer.Addr() != s.client.Addr() {
		fields = append(fields, zap.Stringer("peer", s.peer.Addr()))
	}
	if s.attempt != nil {
		fields = append(fields,
			zap.String("account", s.attempt.account),
			zap.String("outcome", string(s.attempt.outcome)),
			zap.String("reason", s.attempt.reason),
			zap.String("factor", string(s.attempt.verdict.Factor)),
			zap.String("program", s.program()))
	}
	if s.upstream != nil {
		fields = append(fields,
			zap.String("upstream", s.upstream.name),
			zap.Int64("from_client", s.relayed.FromClient.Load()),
			zap.Int64("to_client", s.relayed.ToClient.Load()))
	}
	return fields
}

func (s *session) tlsVersion() string {
	if !s.secure {
		return "none"
	}
	return tls.VersionName(s.version)
}

// tlsNumber is the version as rules have it: "1.2", "1.3".
func (s *session) tlsNumber() string { return strings.TrimPrefix(s.tlsVersion(), "TLS ") }

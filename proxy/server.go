// Package proxy is a client connection from accept to close: it speaks IMAP with
// whoever connects until somebody has proved to be an account's owner, logs in to the
// upstream in their place, and then copies octets both ways.
//
// session.go tells the whole story; each step stands in a file of its own. The package
// decides nothing about who may do what: policy and auth do, and no path leads to the
// upstream without them. It knows no store, no configuration file and no certificate
// file. A Server is safe for concurrent use; a session belongs to one goroutine, but
// for what ends it from outside.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/metrics"
	"imapwarden/policy"
	"imapwarden/relay"
)

// ErrServerClosed is what Serve returns after Shutdown.
var ErrServerClosed = errors.New("proxy: server closed")

// A Server serves any number of listeners. Its fields are set before the first Serve and
// not changed afterwards.
type Server struct {
	Hostname     string // how the greeting calls us
	TLS          *tls.Config
	Names        auth.Names
	Auth         *auth.Authenticator
	Mode         auth.Mode    // whether accounts need a second factor, where no rule says it
	Rules        policy.Rules // the first that matches decides
	Help         string       // the address of a page for people who lack a second factor; "": there is none
	Policy       *policy.Gate
	Webmail      []netip.Prefix // peers whose word for where their users are is believed (ID, x-originating-ip)
	Route        func(account string) *Upstream
	Audit        *audit.Recorder
	Metrics      *metrics.Metrics
	Log          *zap.Logger
	Timeouts     Timeouts
	RefusalDelay time.Duration // a refusal comes no sooner after the credentials
	Refusals     int           // so many end a connection

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	sessions  map[*session]struct{}
	draining  bool
	sampled   *zap.Logger
	revoked   []revocation                        // lately
	programs  map[string]map[programKey]time.Time // by account
	wg        sync.WaitGroup                      // one for each session
	engine    relay.Engine

	recognizers sync.Pool // of *recognizer
}

// Timeouts bound each state of a session; all must be positive.
type Timeouts struct {
	Handshake       time.Duration // the TLS handshake
	Command         time.Duration // from a command's first octet to its last
	Unauthenticated time.Duration // from accept to a good login
	Login           time.Duration // one attempt, with what the upstream takes
	Write           time.Duration // a peer that doesn't read
	Idle            time.Duration // no octet either way after login; RFC 9051, section 5.4: at least 30 minutes
}

// A Listener is one address that clients connect to.
type Listener struct {
	net.Listener
	StartTLS       bool           // else TLS begins at once (RFC 8314)
	TrustedProxies []netip.Prefix // peers whose PROXY header is required and believed
}

// Serve accepts connections until Shutdown, then returns ErrServerClosed.
func (s *Server) Serve(l Listener) error {
	if !s.track(l.Listener) {
		return ErrServerClosed
	}
	defer s.untrack(l.Listener)
	for pause := time.Duration(0); ; {
		conn, err := l.Accept()
		switch {
		case s.isDraining():
			if err == nil {
				conn.Close()
			}
			return ErrServerClosed
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of descriptors: those that we have will be given back
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.Log.Error("can't accept connections, trying again", zap.Stringer("listener", l.Addr()), zap.Error(err))
			time.Sleep(pause)
		default:
			pause = 0
			s.ServeConn(conn, l)
		}
	}
}

// ServeConn serves one connection, as one that l accepted, on a goroutine of its own. It
// returns at once.
func (s *Server) ServeConn(conn net.Conn, l Listener) {
	c := newSession(s, conn, l)
	if !s.register(c) {
		conn.Close()
		return
	}
	go c.run()
}

// Shutdown stops accepting, ends sessions before login with BYE, and lets the others go
// on until ctx ends; then it cuts them. It returns when the last session has ended.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	s.draining = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.sessions {
		c.interrupt()
	}
	s.mu.Unlock()

	ended := make(chan struct{})
	go func() { s.wg.Wait(); s.engine.Close(); close(ended) }()
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.sessions {
		c.cut(endDrained)
	}
	s.mu.Unlock()
	<-ended
}

// recognizer returns one that no handshake uses. It is to be put back after the handshake.
func (s *Server) recognizer() *recognizer {
	if r, ok := s.recognizers.Get().(*recognizer); ok {
		return r
	}
	return newRecognizer(s.TLS)
}

// strangers is the log for sessions that presented no credentials. Anybody can make such
// sessions by the thousand, so of each second the first 50 are logged, then every 100th.
func (s *Server) strangers() *zap.Logger {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sampled == nil {
		s.sampled = s.Log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
			return zapcore.NewSamplerWithOptions(core, time.Second, 50, 100)
		}))
	}
	return s.sampled
}

func (s *Server) track(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	if s.listeners == nil {
		s.listeners = make(map[net.Listener]struct{})
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) untrack(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

// register counts the session before its goroutine starts, so that Shutdown can't miss it.
func (s *Server) register(c *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	if s.sessions == nil {
		s.sessions = make(map[*session]struct{})
		s.engine.Limits = relay.Limits{
			Idle: s.Timeouts.Idle, Write: s.Timeouts.Write, Hold: maxHold, HalfClient: halfOpenClient, HalfUpstream: halfOpenUpstream,
		}
		s.engine.Panicked = func(err error) { s.Log.Error("a session's end is broken, this is a bug", zap.Error(err)) }
		s.engine.Degraded = func(err error) {
			s.Log.Warn("sessions are relayed with goroutines, which takes more memory", zap.Error(err))
		}
	}
	s.sessions[c] = struct{}{}
	s.wg.Add(1)
	return true
}

// forget is the last that a session does.
func (s *Server) forget(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, c)
	s.wg.Done()
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// Package relay moves octets between a client and its upstream, once somebody else has decided
// that it may. A session that idles holds no goroutine, no timer and no buffer: its sockets
// wait in one epoll instance, an event starts a pump on a goroutine of its own, and the pump ends when
// both sides are dry.
//
//	pump.go        a session's turn: what moves, what waits, when it ends
//	side.go        one side of a session, with or without TLS
//	socket.go      the net.Conn under TLS, before and after the hand-over
//	epoll_linux.go who is woken by what; other.go where there is no epoll
//	blocking.go    the same pump over any net.Conn, by a goroutine for each
//	trim.go        gives back what crypto/tls keeps for an idle connection
//	quiet.go       and to the system what nobody uses any more
//
// It knows nothing of IMAP: what passes is a [Filter]'s to say. It adds no octet of its own, for
// none could be put where no literal is.
package relay

import (
	"sync"
	"sync/atomic"
	"time"
)

// A Filter sees all that is relayed and says what passes. Its methods are called one at a time.
type Filter interface {
	// Client takes n octets of what the client sent and returns what goes to the upstream for
	// them; out is valid until the next call. Where it takes and returns nothing, the client has
	// to wait: it is called again when the upstream has said something, also with an empty p.
	Client(p []byte) (out []byte, n int, err error)
	// Holding says whether Client has something left to do without new octets.
	Holding() bool
	// Upstream takes all of p and returns what goes to the client, valid until the next call.
	Upstream(p []byte) []byte
}

// An End is why a session ended: what came first.
type End uint8

// The ends.
const (
	_             End = iota
	ClientEnded       // it closed its side, or was lost
	UpstreamEnded     // likewise
	TimedOut          // see Limits
	FilterRefused     // the error is the Filter's
	Cut               // by Session.Cut
	Failed            // we couldn't take it over
	Panicked          // the error is a *PanicError
)

// Limits are how long a session may wait for what. All must be positive.
type Limits struct {
	Idle         time.Duration // nothing moves
	Write        time.Duration // a side takes nothing of what it is sent, and says nothing either
	Hold         time.Duration // the Filter has the client wait, and the upstream says nothing
	HalfClient   time.Duration // the client has ended, and the upstream still may have answers
	HalfUpstream time.Duration // the upstream has ended, and the client hasn't noticed
}

// An Engine wakes its sessions. The zero value with Limits is ready; it is safe for concurrent use.
type Engine struct {
	Limits Limits
	// Degraded is told once when sessions have to be relayed with goroutines, because there is
	// no epoll; it may be nil.
	Degraded func(error)
	// Panicked is told of a panic in a session's Done; it may be nil.
	Panicked func(error)

	start sync.Once
	epoll *epoll // nil: none
	quiet quiet
}

// A Session is a client and its upstream. Set its exported fields, then give it to [Engine.Relay].
type Session struct {
	Client, Upstream Side
	Filter           Filter
	Done             func(End, error) // called once, after both sides are closed, on any goroutine

	FromClient, ToClient atomic.Int64 // octets passed on so far

	engine *Engine
	state  atomic.Uint32
	cut    atomic.Bool
	hup    atomic.Bool // a side has ended or is lost: read to the end
	due    atomic.Int64
	slot   int32
	timer  *time.Timer // instead of epoll's clock

	// The pump's own.
	end     End // what came first, where the session goes on for a while
	rest    []byte
	waiting bool          // the Filter, for the upstream
	now     time.Duration // since origin, of this turn
	moved   time.Duration // when the last octet came, or a side ended
	heard   time.Duration // when the upstream last spoke, or the Filter began to wait
}

// origin is what times are counted from: an atomic can hold a number, but no time.Time.
var origin = time.Now()

// Relay takes the session over. Nothing else may use its sides from now on. It returns at once.
func (e *Engine) Relay(s *Session) {
	s.engine, s.slot = e, -1
	s.state.Store(running)
	s.now = time.Since(origin)
	s.moved = s.now
	s.due.Store(int64(s.now + e.Limits.Idle))
	e.quiet.sessions.Add(1)
	if err := e.adopt(s); err != nil {
		go s.close(Failed, err)
		return
	}
	s.state.Store(pending) // octets may wait in buffers, of which epoll knows nothing
	go s.pump()            // with a small stack: the handshake's has grown
}

// adopt gives the session's sockets to epoll, or where that can't be to goroutines.
func (e *Engine) adopt(s *Session) error {
	if s.Client.Socket.detachable() && s.Upstream.Socket.detachable() {
		if e.start.Do(e.open); e.epoll != nil {
			return e.epoll.adopt(s)
		}
	}
	s.timer = time.AfterFunc(e.Limits.Idle, s.kick)
	for _, side := range []*Side{&s.Client, &s.Upstream} {
		side.Socket.Conn.SetDeadline(time.Time{})
		side.Socket.raw = block(side.Socket.Conn, s.kick)
	}
	return nil
}

// Cut ends the session at once, whatever it is doing. It may be called from any goroutine, and also
// after its end.
func (s *Session) Cut() {
	s.cut.Store(true)
	s.kick()
}

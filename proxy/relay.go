package proxy

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"imapwarden/imap"
)

const (
	relayBuffer = 32 << 10
	// How long the other direction may go on, once one has ended.
	halfOpenClient   = 30 * time.Second // the upstream may still have answers
	halfOpenUpstream = 5 * time.Second  // nobody listens to the client any more
	// How long the client's octets wait for the upstream's answers while it says nothing. They
	// wait for ever where a client broke IDLE, and its going away isn't noticed meanwhile.
	maxHold = 5 * time.Minute
)

var relayBuffers = sync.Pool{New: func() any { b := make([]byte, relayBuffer); return &b }}

// relay copies octets both ways until both sides have ended, one of them is lost, or
// nothing has moved for the idle time. It adds nothing of its own: a BYE of ours could
// land inside a literal.
func (s *session) relay() error {
	s.mu.Lock()
	s.relaying = true
	s.mu.Unlock()
	s.tcp.SetWriteDeadline(time.Time{}) // see send
	first := s.in.Buffered()            // commands pipelined behind the login, in order
	s.in = nil
	if s.below != nil {
		s.below.free = true
	}

	r := newRelay(s.server.Timeouts)
	r.guard.ReadOnly = s.login.readOnly()
	r.introduced = s.introduced
	done := make(chan struct{})
	var panicked any
	go func() {
		defer close(done)
		defer func() { // run recovers for its own goroutine only
			if panicked = recover(); panicked != nil {
				r.lost(s.conn, s.upstream.conn, endBroken, nil)
			}
		}()
		r.copy(s.conn, s.upstream.conn, s.upstream.first, endUpstream, func(p []byte) error {
			return r.toClient(s.conn, p, &s.toClient)
		})
	}()
	r.copy(s.upstream.conn, s.conn, first, endClient, func(p []byte) error {
		return r.toUpstream(s.upstream.conn, p, &s.fromClient)
	})
	<-done
	if panicked != nil {
		panic(panicked)
	}
	return r.why
}

// A relay is what its two directions share.
type relay struct {
	write      time.Duration
	introduced func(map[string]string) // the client has said what it is

	mu       sync.Mutex
	idle     time.Duration
	moved    time.Time // when the last octet came, from either side
	why      end       // what ended first
	guard    imap.Guard
	answered sync.Cond // the upstream has said something, or it is over
	heardAt  time.Time // when it last did
	over     bool      // one side is lost, or the upstream has ended
	writing  map[net.Conn]bool
}

func newRelay(t Timeouts) *relay {
	r := &relay{idle: t.Idle, write: t.Write, moved: time.Now(), writing: make(map[net.Conn]bool)}
	r.answered.L = &r.mu
	return r
}

// copy hands what src sends to pass until src ends, and then ends dst.
func (r *relay) copy(dst, src net.Conn, first []byte, ends end, pass func([]byte) error) {
	b := relayBuffers.Get().(*[]byte)
	defer relayBuffers.Put(b)
	for p := first; ; {
		if len(p) > 0 {
			r.touch()
			if err := pass(p); err != nil {
				r.lost(dst, src, otherThan(ends), err)
				return
			}
		}
		r.await(src)
		n, err := src.Read(*b)
		p = (*b)[:n]
		switch {
		case n > 0: // an error will come again
			r.alive(src)
		case err == io.EOF:
			r.half(dst, ends)
			return
		case errors.Is(err, os.ErrDeadlineExceeded) && !r.idleTooLong(): // the other direction has moved
		default:
			r.lost(dst, src, ends, err)
			return
		}
	}
}

// toClient writes what the upstream sent, and wakes the other direction, which may be
// waiting for it.
func (r *relay) toClient(client net.Conn, p []byte, count *atomic.Int64) error {
	return r.send(client, r.heard(p), count)
}

func (r *relay) heard(p []byte) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heardAt = time.Now()
	r.answered.Broadcast()
	return r.guard.Upstream(p)
}

// toUpstream writes what the guard makes of what the client sent. Nothing more is read
// from the client while the guard waits for the upstream.
func (r *relay) toUpstream(upstream net.Conn, p []byte, count *atomic.Int64) error {
	for {
		out, n, more, err := r.guarded(p)
		if err != nil {
			return err
		}
		if said := r.said(); said != nil {
			r.introduced(said)
		}
		if err := r.send(upstream, out, count); err != nil {
			return err
		}
		if p = p[n:]; !more {
			return nil
		}
	}
}

// guarded is one step of the guard; more says whether it has something left to do. out may
// be used until the next step.
func (r *relay) guarded(p []byte) (out []byte, n int, more bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	began := time.Now()
	for {
		out, n, err = r.guard.Client(p)
		more = n < len(p) || r.guard.Holding()
		if err != nil || n > 0 || len(out) > 0 || !more {
			return out, n, more, err
		}
		if r.over {
			return nil, 0, false, net.ErrClosed
		}
		since := began
		if r.heardAt.After(since) {
			since = r.heardAt
		}
		left := time.Until(since.Add(maxHold))
		if left <= 0 {
			return nil, 0, false, os.ErrDeadlineExceeded
		}
		alarm := time.AfterFunc(left, r.wake)
		r.answered.Wait()
		alarm.Stop()
	}
}

// said is what the client has said of itself, if it just has.
func (r *relay) said() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.guard.Introduced()
}

func (r *relay) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered.Broadcast()
}

func (r *relay) send(to net.Conn, p []byte, count *atomic.Int64) error {
	if len(p) == 0 {
		return nil
	}
	r.writeBy(to, time.Now().Add(r.write))
	n, err := to.Write(p)
	count.Add(int64(n))
	// None is left standing: crypto/tls also writes while it reads (KeyUpdate, RFC 8446,
	// section 4.6.3), and one such write too late would break the session for good.
	r.writeBy(to, time.Time{})
	return err
}

// writeBy begins a write with its deadline, or ends it without one.
func (r *relay) writeBy(to net.Conn, deadline time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writing[to] = !deadline.IsZero()
	to.SetWriteDeadline(deadline)
}

// alive gives a side more time to take what is being written to it, for it has just said
// something: a server may report the progress of one command before it reads the next.
func (r *relay) alive(side net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.writing[side] {
		side.SetWriteDeadline(time.Now().Add(r.write))
	}
}

func (r *relay) touch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moved = time.Now()
}

// await sets how long src may stay silent.
func (r *relay) await(src net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	src.SetReadDeadline(r.moved.Add(r.idle))
}

func (r *relay) idleTooLong() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.moved) >= r.idle
}

// half passes the end of one side on. The other may finish what it has to say.
func (r *relay) half(dst net.Conn, ends end) {
	dst.SetWriteDeadline(time.Now().Add(r.write))
	closeWrite(dst)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.why == "" {
		r.why = ends
	}
	r.idle, r.moved = halfOpenClient, time.Now()
	if ends == endUpstream {
		r.idle, r.over = halfOpenUpstream, true
		r.answered.Broadcast()
	}
	dst.SetReadDeadline(r.moved.Add(r.idle))
}

// otherThan is the side that didn't take what the one sent.
func otherThan(side end) end {
	if side == endClient {
		return endUpstream
	}
	return endClient
}

// lost ends both directions.
func (r *relay) lost(dst, src net.Conn, ends end, err error) {
	r.mu.Lock()
	if r.why == "" {
		r.why = ends
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			r.why = endTimeout
		case errors.Is(err, imap.ErrUnfollowable), errors.Is(err, imap.ErrTooLong):
			r.why = endUnfollowable
		}
	}
	r.over = true
	r.answered.Broadcast()
	r.mu.Unlock()
	dst.Close()
	src.Close()
}

// closeWrite says that nothing more comes: close_notify where there is TLS, then FIN.
func closeWrite(conn net.Conn) {
	if c, ok := conn.(*tls.Conn); ok {
		c.CloseWrite()
		conn = c.NetConn()
	}
	for {
		if c, ok := conn.(*preread); ok {
			conn = c.Conn
		} else if c, ok := conn.(*frugal); ok {
			conn = c.Conn
		} else {
			break
		}
	}
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
		return
	}
	conn.Close()
}

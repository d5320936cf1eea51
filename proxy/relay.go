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
)

const (
	relayBuffer  = 32 << 10
	halfOpenTime = 30 * time.Second // for the other direction, once one has ended
)

var relayBuffers = sync.Pool{New: func() any { b := make([]byte, relayBuffer); return &b }}

// relay copies octets both ways until both sides have ended, one of them is lost, or
// nothing has moved for the idle time. It adds nothing of its own: a BYE of ours could
// land inside a literal.
func (s *session) relay() error {
	s.mu.Lock()
	s.relaying = true
	s.mu.Unlock()
	first := s.in.Buffered() // commands pipelined behind the login, in order
	s.in = nil

	r := &relay{idle: s.server.Timeouts.Idle, write: s.server.Timeouts.Write, moved: time.Now()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.copy(s.conn, s.upstream.conn, s.upstream.first, &s.toClient, endUpstream)
	}()
	r.copy(s.upstream.conn, s.conn, first, &s.fromClient, endClient)
	<-done
	return r.why
}

// A relay is what its two directions share.
type relay struct {
	write time.Duration

	mu    sync.Mutex
	idle  time.Duration
	moved time.Time // when the last octet came, from either side
	why   end       // what ended first
}

// copy moves octets from src to dst until src ends, and then ends dst.
func (r *relay) copy(dst, src net.Conn, first []byte, count *atomic.Int64, ends end) {
	b := relayBuffers.Get().(*[]byte)
	defer relayBuffers.Put(b)
	n := copy(*b, first) // never more than the reader before login held, which is less
	for {
		if n > 0 {
			r.touch()
			dst.SetWriteDeadline(time.Now().Add(r.write))
			written, err := dst.Write((*b)[:n])
			count.Add(int64(written))
			if err != nil {
				r.lost(dst, src, ends, err)
				return
			}
		}
		r.await(src)
		var err error
		n, err = src.Read(*b)
		switch {
		case n > 0: // an error will come again
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
	r.idle, r.moved = halfOpenTime, time.Now()
	dst.SetReadDeadline(r.moved.Add(r.idle))
}

// lost ends both directions.
func (r *relay) lost(dst, src net.Conn, ends end, err error) {
	r.mu.Lock()
	if r.why == "" {
		r.why = ends
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.why = endTimeout
		}
	}
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
	if c, ok := conn.(*preread); ok {
		conn = c.Conn
	}
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
		return
	}
	conn.Close()
}

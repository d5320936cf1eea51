package relay

import (
	"bytes"
	"io"
	"net"
	"time"
)

// A Socket is a connection on which TLS may run. Until the relay takes it over it is the net.Conn in
// it; from then on it never blocks, and belongs to the session's pump.
type Socket struct {
	net.Conn

	raw    transport // since the hand-over
	out    []byte    // what it didn't take
	gather *[]byte   // gets what is written; nil: it is sent
	ended  bool      // it has given its end (FIN), which TLS may not have expected
}

// A transport is a socket that doesn't block.
type transport interface {
	read(p []byte) (int, error)  // errWouldBlock: there is nothing yet
	write(p []byte) (int, error) // errWouldBlock: it took no more than so many octets
	drains() bool                // a read that gets less than it asks for has got all
	busy() bool                  // it still sends what it took
	failure() error              // that it met with that
	shutdown()                   // of our direction
	close()
}

// errWouldBlock is temporary, so crypto/tls keeps the part of a record that it has and
// goes on with it at the next Read.
var errWouldBlock error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "relay: it would block" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// Read is net.Conn's; after the hand-over errWouldBlock stands for waiting.
func (s *Socket) Read(p []byte) (int, error) {
	if s.raw == nil {
		return s.Conn.Read(p)
	}
	n, err := s.raw.read(p)
	s.ended = s.ended || err == io.EOF
	return n, err
}

// Write is net.Conn's. After the hand-over it never takes less than p: an error, even one for
// the moment, would end TLS for good. The callers see to it that little is kept: they write
// when the socket isn't blocked, and no more than a buffer.
func (s *Socket) Write(p []byte) (int, error) {
	if s.raw == nil {
		return s.Conn.Write(p)
	}
	if s.gather != nil {
		*s.gather = append(*s.gather, p...)
		return len(p), nil
	}
	if len(s.out) > 0 { // an alert, or the answer to a key update
		s.out = append(s.out, p...)
		return len(p), nil
	}
	n, err := s.raw.write(p)
	if err == errWouldBlock {
		s.out = bytes.Clone(p[n:])
		return len(p), nil
	}
	return n, err
}

// flush sends what was kept, and says whether some of it has moved.
func (s *Socket) flush() (moved bool, err error) {
	if len(s.out) == 0 {
		return false, s.raw.failure()
	}
	n, err := s.raw.write(s.out)
	if s.out = s.out[n:]; len(s.out) == 0 {
		s.out = nil
	}
	if err == errWouldBlock {
		err = nil
	}
	return n > 0, err
}

// blocked says whether there is something that hasn't been sent.
func (s *Socket) blocked() bool { return len(s.out) > 0 || s.raw.busy() }

// end closes it for good.
func (s *Socket) end() {
	if s.raw != nil {
		s.raw.close()
	} else {
		s.Conn.Close()
	}
	s.out = nil
}

// After the hand-over there are no deadlines: the session has one of its own.

// SetDeadline is net.Conn's.
func (s *Socket) SetDeadline(t time.Time) error {
	if s.raw != nil {
		return nil
	}
	return s.Conn.SetDeadline(t)
}

// SetReadDeadline is net.Conn's.
func (s *Socket) SetReadDeadline(t time.Time) error {
	if s.raw != nil {
		return nil
	}
	return s.Conn.SetReadDeadline(t)
}

// SetWriteDeadline is net.Conn's.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if s.raw != nil {
		return nil
	}
	return s.Conn.SetWriteDeadline(t)
}

// Close is net.Conn's; after the hand-over it does nothing, for only the pump closes descriptors.
func (s *Socket) Close() error {
	if s.raw != nil {
		return nil
	}
	return s.Conn.Close()
}

// CloseWrite is that of net.TCPConn; what can't be half closed is closed.
func (s *Socket) CloseWrite() error {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return s.Conn.Close()
}

package relay

import (
	"crypto/tls"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// A Side is the client or the upstream.
type Side struct {
	Socket *Socket
	TLS    *tls.Conn // over Socket, its handshake complete; nil: plaintext
	First  []byte    // of what it sent: was read before, and comes before all else

	eof       bool // it has nothing more to say
	deaf      bool // it takes nothing more
	fin       bool // it was told that nothing more comes: close_notify
	shut      bool // and so was its socket
	isBlocked bool
	blockedAt time.Duration // since when it takes nothing and says nothing
}

// What reading left of a side.
type reading uint8

const (
	wet       reading = iota // there may be more
	dry                      // it would block
	ended                    // close_notify, or FIN where there is no TLS
	truncated                // lost, or ended without close_notify
)

// receive reads once. hup says that the end may stand behind what is read.
func (d *Side) receive(b []byte, hup *atomic.Bool) ([]byte, reading, error) {
	if p := d.First; len(p) > 0 {
		d.First = nil
		return p, wet, nil
	}
	if len(d.Socket.out) > mostKept {
		return nil, dry, nil
	}
	atEnd := hup.Load() // before reading: it is set before the pump is woken
	n, err := d.read(b)
	switch {
	case err == errWouldBlock:
		return b[:n], dry, nil
	case err == io.EOF:
		d.eof = true
		return b[:n], ended, nil
	case err != nil:
		return b[:n], truncated, err
	case d.TLS == nil && n < len(b) && !atEnd && d.Socket.raw.drains():
		return b[:n], dry, nil // what comes later is an event of its own
	}
	return b[:n], wet, nil
}

// read reads what there is. TLS gives a record at a time, of which b holds several.
func (d *Side) read(b []byte) (n int, err error) {
	if d.TLS == nil {
		return d.Socket.Read(b)
	}
	for n < len(b) && err == nil && len(d.Socket.out) <= mostKept {
		var m int
		m, err = d.TLS.Read(b[n:])
		n += m
	}
	if err == io.EOF && d.Socket.ended { // FIN, and no close_notify before it (RFC 8446, section 6.1)
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// mostKept is what may wait for a side before nothing more is read from it: it could have us answer key
// updates without end.
const mostKept = 2 * bufferSize

const (
	maxPlaintext = 16 << 10 // of a TLS record
	overhead     = 256      // and what it is longer than that, at most
)

var gathers = sync.Pool{New: func() any {
	b := make([]byte, 0, bufferSize+(bufferSize/maxPlaintext+2)*overhead+8<<10)
	return &b
}}

// send sends p, and keeps what the socket doesn't take. TLS makes several records of much, which
// are gathered for one system call.
func (d *Side) send(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if d.TLS == nil {
		_, err := d.Socket.Write(p)
		return err
	}
	if len(p) < maxPlaintext {
		_, err := d.TLS.Write(p)
		return err
	}
	g := gathers.Get().(*[]byte)
	d.Socket.gather = g
	_, err := d.TLS.Write(p)
	d.Socket.gather = nil
	if err == nil {
		_, err = d.Socket.Write(*g)
	}
	*g = (*g)[:0]
	if cap(*g) <= 2*bufferSize {
		gathers.Put(g)
	}
	return err
}

// finish says that nothing more comes: close_notify where there is TLS, and FIN once all that was
// sent before has left.
func (d *Side) finish() error {
	if !d.fin {
		d.fin = true
		if d.TLS != nil {
			if err := d.TLS.CloseWrite(); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
		}
	}
	if !d.shut && !d.Socket.blocked() {
		d.shut = true
		d.Socket.raw.shutdown()
	}
	return nil
}

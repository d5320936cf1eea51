package proxy

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
)

// What a stranger may send in TLS: until the handshake is over, and afterwards without a
// word of plaintext, which is one record (RFC 8446, section 5.2).
const (
	maxHandshake = 8 << 10
	recordHeader = 5
	maxRecord    = recordHeader + 16<<10 + 256
)

var errSilent = errors.New("proxy: too much TLS without a word")

// A frugal connection bounds what crypto/tls keeps of a stranger's. It gathers handshake
// messages of 64 KiB, before and behind the handshake, in buffers twice as large; and where
// it has read into the next record, a second one beside the first. So only so much is
// read without a word of plaintext, and one record at a time.
type frugal struct {
	net.Conn
	left   int    // octets until plaintext has to come
	header []byte // of the record, as far as it is known
	body   int    // octets of the record still to come
	free   bool   // after login: read what there is
}

func (f *frugal) Read(p []byte) (int, error) {
	if f.free {
		return f.Conn.Read(p)
	}
	want := f.body
	if want == 0 {
		want = recordHeader - len(f.header)
	}
	want = min(want, f.left, len(p))
	if want == 0 {
		return 0, errSilent
	}
	n, err := f.Conn.Read(p[:want])
	f.left -= n
	if f.body > 0 {
		f.body -= n
		return n, err
	}
	if f.header = append(f.header, p[:n]...); len(f.header) == recordHeader {
		f.body, f.header = int(binary.BigEndian.Uint16(f.header[3:])), f.header[:0]
	}
	return n, err
}

// plaintext gives the frugal connection below new credit with each word.
type plaintext struct {
	*tls.Conn
	below *frugal
}

func (c *plaintext) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.below.left = maxRecord
	}
	return n, err
}

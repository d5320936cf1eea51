package relay

import (
	"bytes"
	"io"
	"net"
	"runtime/debug"
	"sync"
)

// blocking is a transport over any net.Conn: where there is no epoll, and in tests on
// pipes. A goroutine waits in Read, with a small buffer while nothing comes.
type blocking struct {
	net.Conn
	wake func()

	mu       sync.Mutex
	taken    sync.Cond // all of in has been
	in       []byte
	inErr    error
	out      []byte // is being written
	outErr   error
	isClosed bool
}

const smallBuffer = 4 << 10

// block starts to read. wake is called when a read or a write is through.
func block(conn net.Conn, wake func()) *blocking {
	b := &blocking{Conn: conn, wake: wake}
	b.taken.L = &b.mu
	go b.receive()
	return b
}

func (b *blocking) receive() {
	p := make([]byte, smallBuffer)
	for {
		n, err := careful(b.Conn.Read, p)
		b.mu.Lock()
		b.in, b.inErr = p[:n], err
		b.mu.Unlock()
		b.wake()
		b.mu.Lock()
		for len(b.in) > 0 && !b.isClosed {
			b.taken.Wait()
		}
		over := err != nil || b.isClosed
		b.mu.Unlock()
		if over {
			return
		}
	}
}

// careful makes an error of a panic: these goroutines have nobody else who would.
func careful(do func([]byte) (int, error), p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			n, err = 0, &PanicError{v, debug.Stack()}
		}
	}()
	return do(p)
}

func (b *blocking) read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.in) == 0 {
		switch {
		case b.inErr == io.EOF && b.outErr != nil: // a reset that the writer has heard of is no end
			return 0, b.outErr
		case b.inErr != nil:
			return 0, b.inErr
		}
		return 0, errWouldBlock
	}
	n := copy(p, b.in)
	if b.in = b.in[n:]; len(b.in) == 0 {
		b.taken.Signal()
	}
	return n, nil
}

func (b *blocking) write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.outErr != nil:
		return 0, b.outErr
	case b.out != nil:
		return 0, errWouldBlock
	}
	b.out = bytes.Clone(p)
	go b.send(b.out)
	return len(p), nil
}

func (b *blocking) send(p []byte) {
	_, err := careful(b.Conn.Write, p)
	b.mu.Lock()
	b.out, b.outErr = nil, err
	b.mu.Unlock()
	b.wake()
}

func (*blocking) drains() bool { return false }

func (b *blocking) busy() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.out != nil
}

func (b *blocking) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.outErr
}

func (b *blocking) shutdown() {
	if c, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
		return
	}
	b.Conn.Close()
}

func (b *blocking) close() {
	b.mu.Lock()
	b.isClosed = true
	b.taken.Signal()
	b.mu.Unlock()
	b.Conn.Close()
}

package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// scanEvery is how often deadlines are looked at: one timer for all sessions.
var scanEvery = 5 * time.Second

// epoll wakes sessions. Its own descriptor waits in Go's poller, so no thread blocks for it.
type epoll struct {
	fd   int
	file *os.File
	stop chan struct{}
	end  sync.Once

	mu    sync.RWMutex
	slots []slot
	free  []int32
}

// A slot is what an event names: a descriptor may be closed and another have its number by
// the time that an event is read. The generation tells a stale one.
type slot struct {
	session    *Session
	generation int32
}

// open starts the engine.
func (e *Engine) open() {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		if e.Degraded != nil {
			e.Degraded(fmt.Errorf("relay: epoll: %w", err))
		}
		return
	}
	unix.SetNonblock(fd, true) // for os.NewFile to give it to the poller
	e.epoll = &epoll{fd: fd, file: os.NewFile(uintptr(fd), "epoll"), stop: make(chan struct{})}
	go e.epoll.run()
	go e.tick()
}

// Close ends the engine, after its last session.
func (e *Engine) Close() {
	e.start.Do(func() {})
	if e.epoll != nil {
		e.epoll.end.Do(func() { close(e.epoll.stop) })
		e.epoll.file.Close()
	}
}

// run hands events on until the descriptor is closed.
func (p *epoll) run() {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return // closed already
	}
	events := make([]unix.EpollEvent, 256)
	raw.Read(func(fd uintptr) bool {
		for {
			n, err := unix.EpollWait(int(fd), events, 0)
			if err == unix.EINTR {
				continue
			}
			if n <= 0 {
				return false // wait; an error there is none but misuse
			}
			p.dispatch(events[:n])
		}
	})
}

func (p *epoll) dispatch(events []unix.EpollEvent) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, event := range events {
		s := p.slots[event.Fd].session
		if s == nil || p.slots[event.Fd].generation != event.Pad {
			continue
		}
		if event.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			s.hup.Store(true)
		}
		s.kick()
	}
}

// tick looks for deadlines, and for quiet.
func (e *Engine) tick() {
	deadlines, second := time.NewTicker(scanEvery), time.NewTicker(time.Second)
	defer deadlines.Stop()
	defer second.Stop()
	for {
		select {
		case <-e.epoll.stop:
			return
		case <-deadlines.C:
			e.epoll.scan()
		case <-second.C:
			e.quiet.look()
		}
	}
}

// scan wakes the sessions whose deadline is past. Their pumps decide.
func (p *epoll) scan() {
	now := int64(time.Since(origin))
	p.mu.RLock()
	defer p.mu.RUnlock()
	for i := range p.slots {
		if s := p.slots[i].session; s != nil && s.due.Load() <= now {
			s.kick()
		}
	}
}

// adopt moves the session's descriptors out of Go's poller into this one, each once and edge
// triggered: they are never armed again.
func (p *epoll) adopt(s *Session) error {
	if err := errors.Join(s.Client.Socket.detach(), s.Upstream.Socket.detach()); err != nil {
		return err
	}
	generation := p.remember(s)
	for _, side := range []*Side{&s.Client, &s.Upstream} {
		event := unix.EpollEvent{
			Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff,
			Fd:     s.slot, Pad: generation,
		}
		if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, int(side.Socket.raw.(descriptor)), &event); err != nil {
			return fmt.Errorf("relay: epoll: %w", err)
		}
	}
	return nil
}

func (p *epoll) remember(s *Session) (generation int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		s.slot, p.free = p.free[n-1], p.free[:n-1]
	} else {
		s.slot = int32(len(p.slots))
		p.slots = append(p.slots, slot{})
	}
	p.slots[s.slot].session = s
	return p.slots[s.slot].generation
}

func (p *epoll) forget(i int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots[i].session = nil
	p.slots[i].generation++
	p.free = append(p.free, i)
}

// detachable says whether there is a descriptor that can leave Go's poller.
func (s *Socket) detachable() bool {
	_, ok := s.Conn.(*net.TCPConn)
	return ok
}

// detach takes a duplicate of the descriptor, which doesn't block either, and closes the original,
// with what Go's poller keeps for it.
func (s *Socket) detach() error {
	raw, err := s.Conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	fd, dup := -1, error(nil)
	if err := raw.Control(func(old uintptr) { fd, dup = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	if dup != nil {
		return fmt.Errorf("relay: no descriptor: %w", dup)
	}
	s.Conn.Close()
	s.Conn = nil
	s.raw = descriptor(fd)
	return nil
}

// A descriptor is a socket in epoll.
type descriptor int32

func (d descriptor) read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(d), p)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return 0, errWouldBlock
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

func (d descriptor) write(p []byte) (written int, err error) {
	for written < len(p) {
		n, err := unix.Write(int(d), p[written:])
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return written, errWouldBlock
		case err != nil:
			return written, os.NewSyscallError("write", err)
		}
		written += n
	}
	return written, nil
}

func (descriptor) drains() bool   { return true }
func (descriptor) failure() error { return nil }
func (descriptor) busy() bool     { return false }
func (d descriptor) shutdown()    { unix.Shutdown(int(d), unix.SHUT_WR) }
func (d descriptor) close()       { unix.Close(int(d)) }

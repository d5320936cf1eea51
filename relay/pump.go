package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"
)

const (
	bufferSize = 64 << 10
	budget     = 16 // buffers that one direction may move before the other has its turn
)

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// A session's states. An event makes an idle one run, and a running one pending: the pump then takes
// one more turn, and ends only from running to idle. So there is never more than one,
// and no event is lost.
const (
	fresh uint32 = iota // not relayed yet
	idle
	running
	pending
	closed
)

// kick has the session look at its sockets, its deadline and whether it is cut.
func (s *Session) kick() {
	for {
		switch s.state.Load() {
		case idle:
			if s.state.CompareAndSwap(idle, running) {
				go s.pump()
				return
			}
		case running:
			if s.state.CompareAndSwap(running, pending) {
				return
			}
		default:
			return
		}
	}
}

// A PanicError is a bug that ended its session.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("relay: panic: %v", e.Value) }

// A stop ends the session.
type stop struct {
	end End
	err error
}

func (e *stop) Error() string { return fmt.Sprintf("relay: end %d: %v", e.end, e.err) }

// pump takes turns until nothing moves any more, or the session has ended.
func (s *Session) pump() {
	defer func() {
		if v := recover(); v != nil {
			s.close(Panicked, &PanicError{v, debug.Stack()})
		}
	}()
	for {
		s.state.Store(running)
		more, err := s.turn()
		if err == nil {
			err = s.park(!more)
		}
		var why *stop
		if errors.As(err, &why) {
			s.close(why.end, why.err)
			return
		}
		if !more && s.state.CompareAndSwap(running, idle) {
			return
		}
	}
}

// turn moves what there is, both ways. The upstream's octets come first, for the client's may wait for them.
func (s *Session) turn() (more bool, err error) {
	if s.cut.Load() {
		return false, &stop{Cut, errCut}
	}
	s.engine.quiet.turns.Add(1)
	s.now = time.Since(origin)
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	down, err := s.down(*b)
	if err != nil {
		return false, err
	}
	deaf := s.Upstream.deaf
	up, err := s.up(*b)
	if err != nil {
		return false, err
	}
	up = up || s.Upstream.deaf && !deaf // its last words are still to be read
	if s.Client.eof && s.Client.shut && s.Upstream.eof {
		return false, &stop{s.end, nil}
	}
	return down || up, nil
}

var errCut = errors.New("relay: cut")

// down moves the upstream's octets to the client. It says whether it stopped only for its budget.
func (s *Session) down(b []byte) (more bool, err error) {
	for range budget {
		if free, err := s.flush(&s.Client, ClientEnded); !free {
			return false, err
		}
		if s.Upstream.eof {
			return false, s.finish(&s.Client, ClientEnded)
		}
		p, state, err := s.Upstream.receive(b, &s.hup)
		if len(p) > 0 {
			s.heardFrom(&s.Upstream)
			s.heard = s.now
			out := s.Filter.Upstream(p)
			s.ToClient.Add(int64(len(out)))
			if err := s.send(&s.Client, out, ClientEnded); err != nil {
				return false, err
			}
		}
		switch state {
		case dry:
			return false, nil
		case ended:
			s.half(UpstreamEnded)
		case truncated: // not to be told as a good end
			return false, s.lost(UpstreamEnded, err)
		}
	}
	return true, nil
}

// up moves the client's octets to the upstream, as the Filter has them.
func (s *Session) up(b []byte) (more bool, err error) {
	for range budget {
		if s.Upstream.eof || s.Upstream.deaf {
			return s.drain(b)
		}
		if free, err := s.flush(&s.Upstream, UpstreamEnded); !free && !s.Upstream.deaf {
			return false, err
		}
		if s.waiting {
			before := len(s.rest)
			if err := s.feed(s.rest, true); err != nil {
				return false, err
			}
			if s.waiting && len(s.rest) == before {
				return false, nil
			}
			continue
		}
		if s.Client.eof {
			return false, s.finish(&s.Upstream, UpstreamEnded)
		}
		p, state, err := s.fromClient(b)
		if len(p) > 0 {
			s.heardFrom(&s.Client)
			if err := s.feed(p, false); err != nil {
				return false, err
			}
		}
		switch state {
		case dry:
			return false, nil
		case ended:
			s.half(ClientEnded)
		case truncated:
			return false, s.lost(ClientEnded, err)
		}
	}
	return true, nil
}

// fromClient receives from the client. Some programs end TLS without saying so: that counts as their end, and what
// they sent before it counts too, for half a command is none.
func (s *Session) fromClient(b []byte) ([]byte, reading, error) {
	p, state, err := s.Client.receive(b, &s.hup)
	if state == truncated && errors.Is(err, io.ErrUnexpectedEOF) {
		s.Client.eof = true
		return p, ended, nil
	}
	return p, state, err
}

// drain reads what the client says when nobody hears it any more: a socket that is closed with octets
// unread resets the connection, and the upstream's last words would be lost.
func (s *Session) drain(b []byte) (more bool, err error) {
	s.rest, s.waiting = nil, false
	s.Upstream.finish() // it has ended: an error is no news
	for range budget {
		if s.Client.eof {
			return false, nil
		}
		switch _, state, err := s.fromClient(b); state {
		case dry:
			return false, nil
		case truncated:
			return false, s.lost(ClientEnded, err)
		}
	}
	return true, nil
}

// feed gives octets of the client's to the Filter, until it has taken them all, waits, or the upstream
// takes no more. What is left is kept; own says that p is what was kept.
func (s *Session) feed(p []byte, own bool) error {
	progress := !s.waiting
	s.waiting = false
	for {
		out, n, err := s.Filter.Client(p)
		if err != nil {
			return &stop{FilterRefused, err}
		}
		p = p[n:]
		progress = progress || n > 0 || len(out) > 0
		if len(out) > 0 {
			s.FromClient.Add(int64(len(out)))
			if err := s.send(&s.Upstream, out, UpstreamEnded); err != nil {
				return err
			}
		}
		s.waiting = len(p) > 0 || s.Filter.Holding()
		if n == 0 && len(out) == 0 || !s.waiting || s.Upstream.Socket.blocked() {
			break
		}
	}
	if s.waiting && progress {
		s.heard = s.now
	}
	if s.rest = p; len(p) == 0 {
		s.rest = nil
	} else if !own {
		s.rest = bytes.Clone(p)
	}
	return nil
}

func (s *Session) send(to *Side, p []byte, who End) error {
	if err := to.send(p); err != nil {
		return s.unsent(to, who, err)
	}
	s.note(to, false)
	return nil
}

// flush sends what the side didn't take before. It says whether there is nothing left of it.
func (s *Session) flush(to *Side, who End) (free bool, err error) {
	moved, err := to.Socket.flush()
	if err != nil {
		return false, s.unsent(to, who, err)
	}
	if moved {
		s.moved = s.now
	}
	s.note(to, moved)
	return !to.isBlocked, nil
}

// unsent is for a side that can't be written to. The client is lost then; the upstream may have said BYE before it
// closed, which is read to its end.
func (s *Session) unsent(to *Side, who End, err error) error {
	if who == ClientEnded || to.eof || errors.As(err, new(*PanicError)) {
		return s.lost(who, err)
	}
	to.deaf, to.isBlocked, to.Socket.out = true, false, nil
	s.hup.Store(true)
	s.half(who)
	return nil
}

// note keeps since when a side takes nothing.
func (s *Session) note(to *Side, moved bool) {
	if to.deaf {
		return
	}
	was := to.isBlocked
	if to.isBlocked = to.Socket.blocked(); moved || !was {
		to.blockedAt = s.now
	}
	if was && !to.isBlocked && to == &s.Upstream {
		s.heard = s.now // only now can it begin to answer
	}
}

// heardFrom notes that a side has said something. It gets more time to take what is being written
// to it: a server may report the progress of one command before it reads the next.
func (s *Session) heardFrom(side *Side) {
	s.moved = s.now
	side.blockedAt = s.now
}

// half notes the end of one side. The other may finish what it has to say.
func (s *Session) half(who End) {
	if s.end == 0 {
		s.end = who
	}
	s.moved = s.now
}

// finish passes the end of the one side on to the other.
func (s *Session) finish(to *Side, who End) error {
	if err := to.finish(); err != nil {
		return s.lost(who, err)
	}
	s.note(to, false)
	return nil
}

// lost ends the session with the side that was lost, unless something came before.
func (s *Session) lost(who End, err error) error {
	if s.end != 0 {
		who = s.end
	}
	return &stop{who, err}
}

// park says when the session has idled too long, and makes it small before it idles on.
func (s *Session) park(idles bool) error {
	due := s.deadline()
	if due <= s.now {
		end := TimedOut
		if s.end != 0 {
			end = s.end
		}
		return &stop{end, errTimeout}
	}
	if !idles {
		return nil
	}
	trim(s.Client.TLS)
	trim(s.Upstream.TLS)
	s.due.Store(int64(due))
	if s.timer != nil {
		s.timer.Reset(due - s.now)
	}
	return nil
}

var errTimeout = errors.New("relay: timed out")

func (s *Session) deadline() time.Duration {
	limits := &s.engine.Limits
	due := s.moved + limits.Idle
	switch {
	case s.Upstream.eof, s.Upstream.deaf:
		due = s.moved + limits.HalfUpstream
	case s.Client.eof:
		due = s.moved + limits.HalfClient
	}
	for _, side := range []*Side{&s.Client, &s.Upstream} {
		if side.isBlocked {
			due = min(due, side.blockedAt+limits.Write)
		}
	}
	if s.waiting && !s.Upstream.isBlocked && !s.Client.isBlocked {
		due = min(due, s.heard+limits.Hold)
	}
	return due
}

// close closes both sides, and says so; once.
func (s *Session) close(end End, err error) {
	if s.state.Swap(closed) == closed {
		return
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.slot >= 0 {
		s.engine.epoll.forget(s.slot)
	}
	s.engine.quiet.sessions.Add(-1)
	s.Client.Socket.end()
	s.Upstream.Socket.end()
	defer func() {
		if v := recover(); v != nil && s.engine.Panicked != nil {
			s.engine.Panicked(&PanicError{v, debug.Stack()})
		}
	}()
	s.Done(end, err)
}

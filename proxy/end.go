package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// An end is why a session ended, in the words of the log. As an error it ends run.
type end string

func (e end) Error() string { return string(e) }

const (
	endLogout       end = "logout"
	endClient       end = "closed by the client"
	endUpstream     end = "closed by the upstream"
	endTimeout      end = "timed out"
	endHandshake    end = "TLS handshake failed"
	endChallenge    end = "answered a CA's challenge"
	endUnfollowable end = "ambiguous command"
	endProxyHeader  end = "no PROXY header, or an untrusted one"
	endLimited      end = "turned away by a limit"
	endTooLong      end = "command too long"
	endBadCommands  end = "too many bad commands"
	endForeign      end = "another protocol"
	endRefusals     end = "too many refusals"
	endDrained      end = "server shutting down"
	endRevoked      end = "revoked"
	endFailed       end = "connection failed"
	endBroken       end = "broken"
)

// ended finds the one reason. What cut the session from outside comes first, for the
// error is then only its echo.
func (s *session) ended(err error) end {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason != "" {
		return s.reason
	}
	var e end
	switch {
	case errors.As(err, &e):
		return e
	case s.interrupted:
		return endDrained
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return endClient
	case errors.Is(err, os.ErrDeadlineExceeded):
		return endTimeout
	}
	return endFailed
}

// interrupt ends a session before login at its next wait, which then says BYE; a
// relayed session goes on. It may be called from any goroutine.
func (s *session) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.relaying {
		return
	}
	s.interrupted = true
	s.cancel()
	s.socket.SetReadDeadline(time.Now())
}

// cut ends a session at once, whatever it is doing: closing is all, for a BYE of ours
// could land inside a literal of the upstream's. It may be called from any goroutine.
func (s *session) cut(why end) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason == "" {
		s.reason = why
	}
	s.cancel()
	if s.relaying {
		s.relayed.Cut()
		return
	}
	s.socket.Close()
	if s.upstream != nil {
		s.upstream.close()
	}
}

// deadline bounds what is read from now on, and everything before login together.
func (s *session) deadline(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interrupted {
		return // the deadline that woke it stands
	}
	t := time.Now().Add(d)
	if last := s.started.Add(s.server.Timeouts.Unauthenticated); t.After(last) {
		t = last
	}
	s.socket.SetDeadline(t)
}

// write sends our own words, before the relay only.
func (s *session) write(text string) error {
	s.socket.SetWriteDeadline(time.Now().Add(s.server.Timeouts.Write))
	_, err := io.WriteString(s.conn, text)
	return err
}

// bye ends the session with an untagged BYE. What the client is still sending is read
// for a moment and dropped: a socket closed with octets unread resets the connection,
// and the BYE would be lost.
func (s *session) bye(why end, text string) error {
	s.socket.SetWriteDeadline(time.Now().Add(lingerTime))
	if _, err := io.WriteString(s.conn, "* BYE "+text+"\r\n"); err == nil {
		if s.tls != nil {
			s.tls.CloseWrite()
		}
		s.socket.CloseWrite()
		s.socket.SetReadDeadline(time.Now().Add(lingerTime))
		io.CopyN(io.Discard, s.socket, lingerOctets)
	}
	return why
}

const (
	lingerTime   = time.Second
	lingerOctets = 256 << 10
)

// address is the IP address and port behind a net.Addr; invalid for a pipe in a test.
func address(a net.Addr) netip.AddrPort {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// printable makes what a client said fit for a log: at most 100 octets of printable ASCII.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, strings.TrimSpace(text))
	return text[:min(len(text), 100)]
}

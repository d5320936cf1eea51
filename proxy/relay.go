package proxy

import (
	"bytes"
	"context"
	"errors"
	"time"

	"imapwarden/imap"
	"imapwarden/policy"
	"imapwarden/relay"
)

// How long a relayed session may go on in a state that can't last.
const (
	halfOpenClient   = 30 * time.Second // the client has ended, and the upstream may still have answers
	halfOpenUpstream = 5 * time.Second  // the upstream has ended, and nobody listens to the client any more
	// How long the client's octets wait for the upstream's answers while it says nothing. They
	// wait for ever where a client broke IDLE, and its going away isn't noticed meanwhile.
	maxHold = 5 * time.Minute
)

// relay hands the session over: it goes on without a goroutine, until s.over is called. From
// here on nothing of ours is said to the client: a BYE could land inside a literal.
func (s *session) relay() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.relayed.Client = relay.Side{
		Socket: s.socket, TLS: s.tls,
		First: bytes.Clone(s.in.Buffered()), // commands pipelined behind the login, in order
	}
	s.relayed.Upstream, s.upstream.side = s.upstream.side, relay.Side{}
	s.relayed.Filter = &guarded{Guard: imap.Guard{ReadOnly: s.login.readOnly()}, session: s}
	s.relayed.Done = s.over
	s.slim()
	s.relaying = true
	s.server.engine.Relay(&s.relayed)
	if s.reason != "" { // it was cut a moment ago
		s.relayed.Cut()
	}
}

// slim lets go of what only the dialog before login needed: it is more than the rest, and the session may
// idle for weeks.
func (s *session) slim() {
	s.below.free = true
	s.in, s.conn, s.tls, s.below, s.tlsClient, s.clientID = nil, nil, nil, nil, nil, nil
	s.beforeLogin = nil
	s.upstream = &backend{name: s.upstream.name}
	s.cancel()
	s.ctx, s.cancel = context.Background(), func() {}
	a := s.login
	s.login = &attempt{
		account: a.account, ruling: policy.Ruling{ReadOnly: a.readOnly()}, verdict: a.verdict,
		outcome: a.outcome, reason: a.reason, concluded: true,
	}
	s.attempt = s.login
}

// A guarded is the filter of a session.
type guarded struct {
	imap.Guard
	session *session
}

// Client is the guard's, and learns what the client says of itself.
func (g *guarded) Client(p []byte) (out []byte, n int, err error) {
	out, n, err = g.Guard.Client(p)
	if said := g.Introduced(); said != nil {
		g.session.introduced(said)
	}
	return out, n, err
}

// over ends a session that was relayed.
func (s *session) over(why relay.End, err error) {
	var bug *relay.PanicError
	if errors.As(err, &bug) {
		s.finish(s.broken(bug.Value, bug.Stack))
		return
	}
	s.finish(relayEnd(why, err))
}

// relayEnd is how the log calls the end of a relayed session.
func relayEnd(why relay.End, err error) end {
	switch why {
	case relay.ClientEnded:
		return endClient
	case relay.UpstreamEnded:
		return endUpstream
	case relay.TimedOut:
		return endTimeout
	case relay.FilterRefused:
		if errors.Is(err, imap.ErrUnfollowable) || errors.Is(err, imap.ErrTooLong) {
			return endUnfollowable
		}
	}
	return endFailed
}

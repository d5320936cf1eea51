package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"imapwarden/auth"
)

// A SessionInfo is what may be shown of a session that is logged in.
type SessionInfo struct {
	ID          string
	Account     string
	Source      netip.Addr
	Program     string // what it said of itself with ID
	Factor      auth.Factor
	AppPassword string // its ID; "" where none let it in
	ReadOnly    bool
	Upstream    string
	Began       time.Time // when it was accepted
	FromClient  int64     // octets
	ToClient    int64
}

// Sessions returns those that are logged in, oldest first.
func (s *Server) Sessions() []SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []SessionInfo
	for c := range s.sessions {
		if info, ok := c.info(); ok {
			list = append(list, info)
		}
	}
	slices.SortFunc(list, func(a, b SessionInfo) int {
		return cmp.Or(a.Began.Compare(b.Began), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// EndSession ends the session with that ID at once, and says whose it was; ok is false where
// none that is logged in has it.
func (s *Server) EndSession(id string) (info SessionInfo, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		if info, ok = c.info(); ok && info.ID == id {
			c.cut(endRevoked)
			return info, true
		}
	}
	return SessionInfo{}, false
}

// A revocation is one that logins on their way have yet to hear of.
type revocation struct {
	auth.Revocation
	at time.Time
}

// Revoke ends the sessions that live under what was taken away, and returns how many there
// were. Logins on their way that would live under it are refused, so it is to be called once
// the records know.
func (s *Server) Revoke(r auth.Revocation) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.revoked = slices.DeleteFunc(s.revoked, func(old revocation) bool { return now.Sub(old.at) > 2*s.Timeouts.Login })
	s.revoked = append(s.revoked, revocation{r, now})
	for c := range s.sessions {
		if c.endsWith(r) {
			c.cut(endRevoked)
			n++
		}
	}
	return n
}

// enter makes the attempt the session's login, unless what it would live under has been taken
// away since it began.
func (s *session) enter(a *attempt) bool {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	for _, r := range s.server.revoked {
		if !r.at.Before(a.began) && r.Ends(a.account, a.verdict) {
			return false
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.login = a
	return true
}

func (s *session) endsWith(r auth.Revocation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.login != nil && r.Ends(s.login.account, s.login.verdict)
}

// info is what may be shown; ok is false before login.
func (s *session) info() (_ SessionInfo, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.login == nil || s.upstream == nil {
		return SessionInfo{}, false
	}
	return SessionInfo{
		ID:          s.id,
		Account:     s.login.account,
		Source:      s.client.Addr(),
		Program:     s.said,
		Factor:      s.login.verdict.Factor,
		AppPassword: s.login.verdict.AppPassword,
		ReadOnly:    s.login.readOnly(),
		Upstream:    s.upstream.name,
		Began:       s.started,
		FromClient:  s.relayed.FromClient.Load(),
		ToClient:    s.relayed.ToClient.Load(),
	}, true
}

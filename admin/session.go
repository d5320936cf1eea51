package admin

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"imapwarden/audit"
	"imapwarden/auth"
)

// A Session is what may be shown of a session that is logged in.
type Session struct {
	ID          string     `json:"id"`
	Account     string     `json:"account"`
	Source      netip.Addr `json:"source"`
	Program     string     `json:"program"`      // what the client said of itself with ID; "" where it said nothing
	Factor      string     `json:"factor"`       // as in audit.Event
	AppPassword string     `json:"app_password"` // its ID; "" where none let it in
	ReadOnly    bool       `json:"read_only"`
	Upstream    string     `json:"upstream"`
	Began       time.Time  `json:"began"`
	FromClient  int64      `json:"from_client"` // octets
	ToClient    int64      `json:"to_client"`
}

// Sessions are those of the server that is asked.
type Sessions interface {
	// Sessions returns those that are logged in, oldest first.
	Sessions() []Session
	// EndSession ends one at once and says whose it was; false where there is none with that ID.
	EndSession(id string) (Session, bool)
	// EndAccount ends all of an account's at once, and returns how many there were.
	EndAccount(account string) int
}

func (s *Server) listSessions(q request) (any, error) {
	account := ""
	if q.Account != "" {
		var err error
		if account, err = s.Directory.Names.Canonical(q.Account); err != nil {
			return nil, err
		}
	}
	list := []Session{} // none is [] in JSON, not null
	if s.Sessions == nil {
		return list, nil
	}
	for _, session := range s.Sessions.Sessions() {
		if account == "" || session.Account == account {
			list = append(list, session)
		}
	}
	return list, nil
}

// killSessions ends the one that is named, or all of the account.
func (s *Server) killSessions(ctx context.Context, q request) (any, error) {
	event, n, err := s.kill(q)
	q.record(ctx, event, err)
	return killed{event.Account, n}, err
}

func (s *Server) kill(q request) (event audit.Event, n int, err error) {
	event.Kind = "session.kill"
	switch {
	case (q.Session == "") == (q.Account == ""):
		return event, 0, refuse(auth.BadValue, "either a session is to be named or an account")
	case q.Session != "":
		session, ok := s.endSession(q.Session)
		if !ok {
			// The ID stands in no event: what was typed there may be anything.
			return event, 0, refuse(auth.NotFound, fmt.Sprintf("no session %q is logged in; to see those that are, run: imapwarden session list", q.Session))
		}
		event.Account, event.Session = session.Account, session.ID
		return event, 1, nil
	}
	if event.Account, err = s.Directory.Names.Canonical(q.Account); err != nil || s.Sessions == nil {
		return event, 0, err
	}
	return event, s.Sessions.EndAccount(event.Account), nil
}

func (s *Server) endSession(id string) (Session, bool) {
	if s.Sessions == nil {
		return Session{}, false
	}
	return s.Sessions.EndSession(id)
}

// killed is the answer to what ends sessions.
type killed struct {
	Account  string `json:"account"`
	Sessions int    `json:"sessions"` // how many there were
}

func refuse(reason auth.Reason, message string) error {
	return &auth.Refusal{Reason: reason, Message: message}
}

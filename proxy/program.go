package proxy

import (
	"maps"
	"time"

	"imapwarden/audit"
)

// says notes what the client said of itself with ID (RFC 2971), for logs, the audit and who
// looks at the list of sessions.
func (s *session) says(fields map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.said = ""; fields["name"] != "" {
		s.said = printable(fields["name"] + " " + fields["version"])
	}
}

func (s *session) program() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said
}

// Most mail programs say what they are only after login. An audit event then completes the
// login's: one a day for each account, factor and program, for they say so on each
// connection; and no more than a few, for a client may say what it likes.
const (
	programDay  = 24 * time.Hour
	maxPrograms = 10_000 // accounts whose programs are remembered; of more, all are forgotten
	maxNames    = 8      // programs of one of them in a day
)

type programKey struct{ factor, program string }

// introduced takes ID after login: the first of the session counts.
func (s *session) introduced(fields map[string]string) {
	s.says(fields)
	program := s.program()
	if program == "" || s.hasIntroduced {
		return
	}
	s.hasIntroduced = true
	verdict := s.login.verdict
	s.server.Auth.Introduced(verdict, s.client.Addr(), program)
	if !s.server.newProgram(s.login.account, programKey{string(verdict.Factor), program}, time.Now()) {
		return
	}
	s.server.Audit.Record(s.ctx, audit.Event{
		Time: time.Now(), Kind: "session.program", Outcome: audit.Accepted, Session: s.id, Account: s.login.account,
		Source: sourceText(s.client.Addr()), Program: program, Factor: string(verdict.Factor),
	})
}

// newProgram says whether that is worth an event.
func (s *Server) newProgram(account string, key programKey, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.programs[account]; !ok && (s.programs == nil || len(s.programs) >= maxPrograms) {
		s.programs = make(map[string]map[programKey]time.Time)
	}
	names := s.programs[account]
	if names == nil {
		names = make(map[programKey]time.Time)
		s.programs[account] = names
	}
	maps.DeleteFunc(names, func(_ programKey, at time.Time) bool { return now.Sub(at) >= programDay })
	if _, known := names[key]; known || len(names) >= maxNames {
		return false
	}
	names[key] = now
	return true
}

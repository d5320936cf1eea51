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
// connection.
const (
	programDay  = 24 * time.Hour
	maxPrograms = 10_000
)

type programKey struct{ account, factor, program string }

// introduced takes ID after login.
func (s *session) introduced(fields map[string]string) {
	s.says(fields)
	program := s.program()
	if program == "" {
		return
	}
	verdict := s.login.verdict
	s.server.Auth.Introduced(verdict, s.client.Addr(), program)
	if !s.server.newProgram(programKey{s.login.account, string(verdict.Factor), program}, time.Now()) {
		return
	}
	s.server.Audit.Record(s.ctx, audit.Event{
		Time: time.Now(), Kind: "session.program", Outcome: audit.Accepted, Session: s.id, Account: s.login.account,
		Source: sourceText(s.client.Addr()), Program: program, Factor: string(verdict.Factor),
	})
}

// newProgram says whether that is worth an event. Of more than can be remembered, all are
// forgotten.
func (s *Server) newProgram(key programKey, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.programs[key]) < programDay {
		return false
	}
	if s.programs == nil || len(s.programs) >= maxPrograms {
		maps.DeleteFunc(s.programs, func(_ programKey, at time.Time) bool { return now.Sub(at) >= programDay })
		if s.programs == nil || len(s.programs) >= maxPrograms {
			s.programs = make(map[programKey]time.Time)
		}
	}
	s.programs[key] = now
	return true
}

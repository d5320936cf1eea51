package proxy

import (
	"fmt"
	"time"

	goimap "github.com/emersion/go-imap/v2"

	"imapwarden/audit"
	"imapwarden/policy"
)

// A reply is what a client reads of a refusal.
type reply struct {
	code goimap.ResponseCode
	text string
}

// replyTo is the one place that chooses it (codes: RFC 5530). Whatever was wrong with the
// credentials, the octets are the same, so that nobody learns that a sprayed password was
// right. What the client should wait out is UNAVAILABLE: mail programs then keep the
// password that they have.
func replyTo(outcome audit.Outcome, reason string) reply {
	switch {
	case outcome == audit.Failed:
		return reply{goimap.ResponseCodeUnavailable, "Service temporarily unavailable, try again later"}
	case reason == policy.AddressLimit, reason == policy.AccountLimit:
		return reply{goimap.ResponseCodeUnavailable, "Too many failed logins, try again later"}
	case reason == policy.ConnectionsAccount, reason == policy.ConnectionsAccountSource:
		return reply{goimap.ResponseCodeLimit, "Too many connections"}
	case reason == reasonForeign:
		return reply{goimap.ResponseCodeAuthorizationFailed, "No access to that identity"}
	}
	return reply{goimap.ResponseCodeAuthenticationFailed, "Authentication failed"}
}

// refuse answers an attempt that was refused or that failed, not before a fixed time, and
// ends the session with the last that it may have.
func (s *session) refuse(a *attempt) error {
	lasts := s.server.RefusalDelay
	if a.claim != nil {
		lasts = refusalTime(lasts, s.server.Timeouts.Login, time.Since(a.began), a.missed, &s.server.Route(a.account).pace)
	}
	a.note()
	a.conclude()
	if err := s.waitUntil(a.began.Add(lasts)); err != nil {
		return s.bye(endDrained, "Server shutting down, please reconnect")
	}
	r := replyTo(a.outcome, a.reason)
	if err := s.write(fmt.Sprintf("%s NO [%s] %s\r\n", a.tag, r.code, r.text)); err != nil {
		return err
	}
	if s.refusals++; s.refusals >= s.server.Refusals {
		return s.bye(endRefusals, "Too many failed logins")
	}
	return nil
}

func (s *session) waitUntil(t time.Time) error {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

package proxy

import (
	"fmt"
	"slices"
	"time"

	goimap "github.com/emersion/go-imap/v2"

	"imapwarden/audit"
	"imapwarden/auth"
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
	case reason == policy.RuleDenied: // it may be another hour or another place next time
		return reply{goimap.ResponseCodeUnavailable, "Service temporarily unavailable, try again later"}
	case slices.Contains(tooMany, reason):
		return reply{goimap.ResponseCodeUnavailable, "Too many failed logins, try again later"}
	case reason == policy.ConnectionsAccount, reason == policy.ConnectionsAccountSource:
		return reply{goimap.ResponseCodeLimit, "Too many connections"}
	case reason == reasonForeign:
		return reply{goimap.ResponseCodeAuthorizationFailed, "No access to that identity"}
	}
	return reply{goimap.ResponseCodeAuthenticationFailed, "Authentication failed"}
}

// tooMany are the signals that end by themselves when one waits.
var tooMany = []string{
	policy.AddressLimit, policy.RangeLimit, policy.Banned, policy.TarpitBusy,
	policy.FamiliarLimit, policy.AccountLimit, policy.AccountCodes, policy.StrangersLimit,
}

// hint is what people are told of a second factor that they lack; "" is nothing. Only sources
// that the account has used before are told, for it says that the password is right.
func hint(reason auth.Reason, help string) string {
	text := ""
	switch reason {
	case auth.NoCode, auth.NotEnrolled:
		text = "Second factor needed"
	case auth.Expired:
		text = "Second factor expired"
	case auth.WrongCode, auth.ReplayedCode:
		text = "Second factor needed: that code doesn't count"
	default:
		return ""
	}
	if help != "" {
		text += ", see " + help
	}
	return text
}

// tellHint sends it as an alert (RFC 9051, section 7.1) before the answer, whose octets stay
// the same.
func (s *session) tellHint(a *attempt) error {
	if !a.missed || !a.verdict.Familiar && !s.server.Policy.Knows(policy.Attempt{Addr: s.client.Addr(), Account: a.account}) {
		return nil
	}
	text := hint(a.verdict.Reason, s.server.Help)
	if text == "" {
		return nil
	}
	return s.write("* NO [ALERT] " + text + "\r\n")
}

// refuse answers an attempt that was refused or that failed, not before a fixed time, and
// ends the session with the last that it may have.
func (s *session) refuse(a *attempt) error {
	defer a.trial.Release()
	lasts := s.server.RefusalDelay
	if a.claim != nil || a.unasked {
		took := time.Since(a.began)
		switch pace := &s.server.Route(a.account).pace; {
		case a.missed:
			took += pace.extra()
		case a.took == 0 && (a.unasked || a.verdict.Reason.IsLocal()):
			took += pace.refusal()
		case a.took == 0: // it shares another connection's refusal, perhaps after a moment only
			took = max(took, pace.refusal())
		}
		lasts = refusalTime(lasts, s.server.Timeouts.Login, took)
	}
	a.note()
	a.conclude()
	if lasts > 0 { // without a delay nobody waits
		lasts = max(lasts, a.trial.Tarpit())
	}
	if err := s.waitUntil(a.began.Add(lasts)); err != nil {
		return s.bye(endDrained, "Server shutting down, please reconnect")
	}
	if err := s.tellHint(a); err != nil {
		return err
	}
	r := replyTo(a.outcome, a.readsAs())
	if err := s.write(fmt.Sprintf("%s NO [%s] %s\r\n", a.tag, r.code, r.text)); err != nil {
		return err
	}
	if s.refusals++; s.refusals >= s.server.Refusals {
		return s.bye(endRefusals, "Too many failed logins")
	}
	return nil
}

// readsAs is the reason that the client reads: that of others who are refused at this time.
func (a *attempt) readsAs() string {
	if a.outcome == audit.Refused && a.verdict.Outcome != auth.Accepted && a.looks != "" {
		return a.looks
	}
	return a.reason
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

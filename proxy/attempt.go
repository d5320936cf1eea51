package proxy

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"

	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/imap"
	"imapwarden/policy"
)

// RFC 4616, section 2 has 255 octets for the user name. A secret may be longer, for it
// is a password and a code.
const (
	maxUsername = 255
	maxSecret   = 512
)

// Reasons of the proxy's own, beside those of auth and the signals of policy.
const (
	reasonMalformed    = "malformed-credentials"
	reasonName         = "malformed-name"
	reasonForeign      = "foreign-authzid"
	reasonUnavailable  = "upstream-unavailable"
	reasonStore        = "store-unavailable"
	reasonInterrupted  = "interrupted"
	reasonNotJudgedYet = "not-judged"
	reasonRevoked      = "revoked" // while it was on its way
)

// An attempt is one presented set of credentials and what became of it.
type attempt struct {
	session *session
	tag     string
	began   time.Time
	ctx     context.Context // ends when an answer is due
	cancel  context.CancelFunc

	username string
	authzid  string
	secret   auth.Secret
	account  string // once the name has passed
	foreign  bool   // the authzid is somebody else's

	ruling policy.Ruling
	trial  *policy.Trial // the place in policy's counts
	claim  *auth.Claim   // what auth made of the secret

	took      time.Duration // the upstream's part
	missed    bool          // the password was right, and something else was missing
	unasked   bool          // refused as a wrong password is, without the upstream's word
	looks     string        // what the client reads a refusal for, where not for the reason; see policy.Decision
	concluded bool
	cheap     bool // costs whoever makes it nothing in any count: there may be thousands

	outcome audit.Outcome // until judged: Refused
	reason  string
	rule    string // what decided, or would have: a rule or a limit
	verdict auth.Verdict
}

func (s *session) newAttempt(tag string, c imap.Credentials) *attempt {
	a := &attempt{
		session:  s,
		tag:      tag,
		began:    time.Now(),
		username: c.Username,
		authzid:  c.Authzid,
		secret:   c.Password,
		outcome:  audit.Refused,
		reason:   reasonNotJudgedYet,
	}
	a.ctx, a.cancel = context.WithTimeout(s.ctx, s.server.Timeouts.Login)
	return a
}

// decide says whether the upstream may be asked: first policy, then the second factor.
func (s *session) decide(a *attempt) bool {
	if reason := malformed(a.username, a.secret); reason != "" {
		a.cheap = true
		return a.refused(reason)
	}
	var err error
	// Who types an app password into the wrong field must not find it in the audit.
	if a.account, err = s.server.Names.Canonical(a.username); err != nil || auth.LooksLikeAppPassword([]byte(a.username)) {
		a.account, a.cheap = "", true
		return a.refused(reasonName)
	}
	a.foreign = !s.isSelf(a.authzid, a.account)

	a.ruling = s.server.Rules.Match(policy.Subject{
		Account: a.account, Addr: s.client.Addr(), Time: a.began, TLS: s.tlsNumber(), Program: strings.ToLower(s.program()),
	})
	if a.rule = a.ruling.Rule; a.ruling.Denied {
		a.cheap = true
		return a.refused(policy.RuleDenied)
	}
	decision, err := s.admitAttempt(a)
	if err != nil {
		return a.failed(reasonStore, err)
	}
	if !decision.Allowed {
		return a.limited(decision)
	}
	a.rule = cmp.Or(decision.Why, decision.Observed, a.rule)
	if a.claim, err = s.server.Auth.Examine(a.ctx, s.asks(a, decision)); err != nil {
		return a.failed(reasonStore, err)
	}
	if verdict, decided := a.claim.Decided(); decided {
		return a.judged(verdict)
	}
	return s.weigh(a)
}

// asks is what auth is asked: policy may want more of the attempt than the settings do.
func (s *session) asks(a *attempt, d policy.Decision) auth.Attempt {
	mode := auth.Mode(cmp.Or(a.ruling.SecondFactor, string(s.server.Mode)))
	if d.Demand > policy.DemandNothing {
		mode = auth.Required
	}
	return auth.Attempt{
		Account:   a.account,
		Secret:    a.secret,
		Source:    s.client.Addr(),
		Client:    s.tlsClient,
		Program:   s.program(),
		Mode:      mode,
		Master:    s.server.Route(a.account).Master != nil,
		FreshCode: d.Demand == policy.DemandFreshCode,
		Brief:     s.server.Policy.Alarmed(),
		Repeated:  a.trial.Repeated(),
	}
}

// evidence says in policy's words what a claim brings.
func evidence(w auth.Worth) policy.Evidence {
	switch w {
	case auth.WorthPassword:
		return policy.PasswordAlone
	case auth.WorthCode:
		return policy.RightCode
	case auth.WorthGrant:
		return policy.Granted
	}
	return policy.Nothing
}

// weigh asks policy whether the upstream may be asked, now that it is known what the attempt brings. Where
// the records know the owner to have been here and policy doesn't, it learns so.
func (s *session) weigh(a *attempt) bool {
	proof := evidence(a.claim.Worth())
	d := a.trial.Weigh(a.ctx, proof)
	if who := s.who(a); !d.Allowed && a.claim.IsFamiliar() && !s.server.Policy.Knows(who) {
		a.trial.Release()
		s.server.Policy.Acquaint(who)
		if d, a.trial = s.server.Policy.Await(a.ctx, who); d.Allowed {
			d = a.trial.Weigh(a.ctx, proof)
		}
	}
	if a.looks = d.Looks; d.Allowed {
		a.rule = cmp.Or(a.rule, d.Observed)
		return true
	}
	a.unasked = true // right or wrong, it counts
	return a.limited(d)
}

// who is the attempt as policy knows it.
func (s *session) who(a *attempt) policy.Attempt {
	return policy.Attempt{
		Addr: s.client.Addr(), Account: a.account,
		AppPassword: auth.LooksLikeAppPassword(a.secret),
		Secret:      a.secret, Front: s.server.Auth.Front(a.secret),
	}
}

// admitAttempt asks policy. Where that says no and doesn't know the account's owner to have
// been here, the records may: after a restart too, others' guesses don't lock owners out.
func (s *session) admitAttempt(a *attempt) (decision policy.Decision, err error) {
	who := s.who(a)
	decision, a.trial = s.server.Policy.Await(a.ctx, who)
	if decision.Allowed || s.server.Policy.Knows(who) {
		return decision, nil
	}
	remembers := s.server.Auth.Familiar
	if who.AppPassword {
		remembers = s.server.Auth.FamiliarToAppPasswords
	}
	familiar, err := remembers(a.ctx, a.account, who.Addr)
	if err != nil || !familiar {
		return decision, err
	}
	s.server.Policy.Acquaint(who)
	decision, a.trial = s.server.Policy.Await(a.ctx, who)
	return decision, nil
}

// malformed judges credentials by their octets alone: what no upstream should see.
func malformed(username string, secret []byte) string {
	switch {
	case username == "", len(secret) == 0,
		len(username) > maxUsername, len(secret) > maxSecret,
		imap.HasControl([]byte(username)), imap.HasControl(secret),
		!utf8.ValidString(username), !utf8.Valid(secret):
		return reasonMalformed
	}
	return ""
}

// isSelf says whether an authorization identity is the account's own: clients such as
// mbsync and neomutt send it beside the same user name.
func (s *session) isSelf(authzid, account string) bool {
	if authzid == "" {
		return true
	}
	name, err := s.server.Names.Canonical(authzid)
	return err == nil && name == account
}

// connect logs in to the upstream with what is left of the secret, and has the upstream's
// word settle the attempt. Whatever makes it a no, the upstream's connection is closed.
func (s *session) connect(a *attempt) bool {
	asked := time.Now()
	upstream, answer, err := s.server.Route(a.account).login(a.ctx, identity{
		account: a.account, password: a.claim.Password(), master: a.claim.Master(),
		client: s.client, local: s.local, session: s.id, id: s.clientID,
	}, s.server.Metrics)
	a.took = time.Since(asked)
	switch answer {
	case answerNo:
		verdict, err := a.claim.Deny(a.ctx)
		if err != nil {
			return a.failed(reasonStore, err)
		}
		return a.judged(verdict)
	case answerUnknown:
		return a.failed(reasonUnavailable, err)
	}
	if s.accept(a) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.upstream = upstream
		return true
	}
	upstream.close()
	return false
}

// accept settles an attempt whose password was right: is there a second factor, and a
// place for one more session?
func (s *session) accept(a *attempt) bool {
	verdict, err := a.claim.Accept(a.ctx)
	if err != nil {
		return a.failed(reasonStore, err)
	}
	if !a.judged(verdict) {
		a.missed = verdict.Outcome == auth.Refused
		return false
	}
	ok := true
	if a.foreign { // told only to somebody who is the account's owner
		ok = a.refused(reasonForeign)
	} else if decision, slot := s.server.Policy.Enter(s.client.Addr(), a.account, a.ruling.MaxSessions); !decision.Allowed {
		ok = a.limited(decision)
	} else if s.afterLogin = slot; !s.enter(a) {
		s.afterLogin.Release()
		ok = a.refused(reasonRevoked)
	}
	if !ok {
		s.server.Auth.SessionEnded(verdict)
	}
	return ok
}

// readOnly says whether the session may change nothing in the mailbox.
func (a *attempt) readOnly() bool { return a.verdict.ReadOnly || a.ruling.ReadOnly }

func (a *attempt) refused(reason string) bool {
	a.outcome, a.reason = audit.Refused, reason
	return false
}

// limited refuses what policy doesn't let on. Some of it looks like a wrong password, and counts
// as one: there was one attempt more, of which nobody asked whether it was right.
func (a *attempt) limited(d policy.Decision) bool {
	a.session.server.Metrics.Limited(d.Signal)
	a.rule = cmp.Or(a.rule, d.Signal)
	switch d.Signal {
	case policy.Unproved, policy.Repeated:
		a.unasked = true
	case policy.PasswordCommon, policy.DecoyAccount:
		a.unasked, a.cheap = true, true
	default:
		a.rule, a.cheap = d.Signal, true
	}
	return a.refused(d.Signal)
}

func (a *attempt) judged(v auth.Verdict) bool {
	a.verdict, a.reason = v, string(v.Reason)
	a.outcome = audit.Refused
	if v.Outcome == auth.Accepted {
		a.outcome = audit.Accepted
	}
	return v.Outcome == auth.Accepted
}

// note tells the upstream's pace of an answer, once its own refusal time is settled.
func (a *attempt) note() {
	s, upstream := a.session, a.session.server.Route(a.account)
	switch {
	case a.missed:
		upstream.pace.noteYes(a.took)
	case a.verdict.Reason == auth.WrongPassword && a.took > 0 && upstream.pace.noteNo(a.took, s.server.RefusalDelay):
		s.server.Log.Warn("the upstream takes longer over a wrong password than mfa.refusal_delay: "+
			"turn its own delays off (Dovecot: auth_failure_delay, auth-penalty; pam_unix: nodelay), or raise the setting",
			zap.String("upstream", upstream.Name), zap.Duration("took", a.took))
	}
}

// failed is for what could not be told: never a yes, and nobody's fault in any count.
func (a *attempt) failed(reason string, err error) bool {
	s := a.session
	if s.ctx.Err() != nil {
		reason = reasonInterrupted
	}
	a.outcome, a.reason, a.cheap = audit.Failed, reason, true
	s.server.Log.Error("login attempt failed", zap.String("session", s.id),
		zap.String("account", a.account), zap.String("reason", reason), zap.Error(err))
	return false
}

// conclude releases what the attempt holds and records its outcome, once, before the
// client reads it.
func (a *attempt) conclude() {
	if a.concluded {
		return
	}
	a.concluded = true
	s := a.session
	a.settle()
	if a.claim != nil {
		a.claim.Release()
	}
	a.secret.Wipe()
	a.cancel()
	s.server.Metrics.Login(string(a.outcome), a.reason, string(a.verdict.Factor), time.Since(a.began))
	// A session that ends still has its say, but not for ever: what the store doesn't take
	// in time is in the log.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.server.Timeouts.Write)
	defer cancel()
	if a.cheap {
		s.server.Audit.RecordRepeated(ctx, a.event())
		return
	}
	s.server.Audit.Record(ctx, a.event())
}

// settle tells policy what became of the attempt. What waits for the trial goes on waiting until the
// client has its answer.
func (a *attempt) settle() {
	if a.trial == nil {
		return
	}
	switch {
	case a.outcome == audit.Accepted:
		a.trial.Succeeded(a.password())
	case a.outcome != audit.Refused:
	case a.unasked || isGuess(a.verdict):
		a.cheap = a.trial.Failed(policy.Failure{
			Password: a.password(),
			Right:    a.missed || a.unasked && a.claim != nil && a.claim.IsRight(),
			Code:     a.session.server.Auth.Front(a.secret) != nil,
			Unknown:  a.claim != nil && !a.claim.IsKnown(),
		}) || a.cheap
	case a.verdict.Reason != "":
		a.cheap = true // it is charged nowhere
	}
}

// password is what the attempt's secret has as the account's own, nil where it has none.
func (a *attempt) password() []byte {
	if a.claim == nil || a.verdict.Factor == auth.FactorAppPassword || auth.LooksLikeAppPassword(a.secret) {
		return nil
	}
	return a.claim.Password()
}

// isGuess says whether a refusal counts against its source. A code or grant that was
// right once, from where the owner has been, doesn't: that is a mail program with its owner
// away. (From elsewhere it does, or else the limits would tell a right password from a
// wrong one.) Refusals that auth had no part in have no reason of its own.
func isGuess(v auth.Verdict) bool {
	return v.Reason.IsGuess() || v.Reason == auth.Expired && !v.Familiar
}

func (a *attempt) event() audit.Event {
	e := audit.Event{
		Time:    time.Now(),
		Kind:    "login",
		Outcome: a.outcome,
		Session: a.session.id,
		Account: a.account,
		Source:  sourceText(a.session.client.Addr()),
		Program: a.session.program(),
		Factor:  string(a.verdict.Factor),
		Reason:  a.reason,
		Rule:    a.rule,
	}
	switch v := a.verdict; {
	case v.WouldRefuse != "":
		e.Detail = "mfa.mode observe: would be refused, " + string(v.WouldRefuse)
	case v.AppPassword != "":
		e.Detail = "app password " + v.AppPassword
	case v.Factor == auth.FactorRecovery:
		e.Detail = recoveryLeft(v.RecoveryLeft)
	}
	return e
}

// fewRecovery is how many recovery codes are few.
const fewRecovery = 3

func recoveryLeft(n int) string {
	if n > fewRecovery {
		return fmt.Sprintf("%d recovery codes left", n)
	}
	return fmt.Sprintf("warning: only %d recovery codes left; 'imapwarden account recovery' makes new ones", n)
}

func sourceText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

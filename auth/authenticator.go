// Package auth answers who somebody is: account names, passwords with codes behind
// them, grants, and the administration of all that. It also holds the keys
// that seal what the store keeps.
//
// The upstream alone judges passwords. So a login has two halves: Authenticator.Examine
// finds what an attempt brings beside its password, and the Claim that it returns
// is settled by the upstream's word. A refusal is a Verdict or, in administration, a
// *Refusal; any other error is a failure, and nobody comes in by one.
//
// The package knows no protocol, no store (Records is what it asks of one) and no
// audit. Authenticator, Directory and Keys are safe for concurrent use.
package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"
)

const (
	writeEvery = 30 * time.Second // how long a crash lets grants seem idle
	purgeEvery = time.Hour
	lastWrite  = 5 * time.Second
)

// An Authenticator decides about logins. Set its fields before its first use.
type Authenticator struct {
	Records       Records
	Keys          *Keys
	Grant         GrantSettings
	CodeSeparator string           // between password and code; "": the last six digits are the code
	Now           func() time.Time // nil: time.Now
	Log           *zap.Logger      // nil: none
	Ended         func(Revocation) // told when grants end whose password was changed; nil: nobody

	flights flights
	stays   stays
	uses    uses
	sealed  sealedLately
	retries retries
}

// An Attempt is one presented set of credentials.
type Attempt struct {
	Account   string     // as Names.Canonical made it
	Secret    Secret     // what the client sent as its password; not to be wiped before the claim is settled
	Source    netip.Addr // the client's address
	Client    []byte     // the id of the TLS client, nil where it has none
	Program   string     // what the client said of itself, for the last use of an app password
	Mode      Mode       // what the rules ask of it
	Master    bool       // the upstream has a master user, so that app passwords need no vault
	FreshCode bool       // grants don't count, but for this very login on its other connections
	Brief     bool       // grants that it gives last a quarter of their time only
	Repeated  bool       // this very secret was wrong here lately: time doesn't make its code right
}

// Examine finds out what an attempt brings beside its password, before the upstream
// is asked. An error means that we could not tell: the client is to come back later.
// It waits while the same secret with a fresh code is on its way from the same place;
// ctx bounds that.
func (a *Authenticator) Examine(ctx context.Context, at Attempt) (*Claim, error) {
	if !at.Source.IsValid() {
		return nil, fmt.Errorf("auth: examining an attempt on %s: no source address", at.Account)
	}
	if len(at.Secret) == 0 { // some upstreams take it for a request to come in without a password
		return a.decided(at, refused(WrongPassword)), nil
	}
	if LooksLikeAppPassword(at.Secret) {
		return a.examineAppPassword(ctx, at)
	}
	c, err := a.examine(ctx, at)
	if err != nil || !c.bringsCode() {
		return c, err
	}
	flight, refusal, waited, err := a.flights.lead(ctx, a.flightKey(at))
	if err != nil {
		return nil, err
	}
	if refusal != nil {
		return a.decided(at, *refusal), nil
	}
	leads := false
	defer func() {
		if !leads {
			flight.land(nil)
		}
	}()
	if waited { // whoever led before may have spent the code since we looked
		c, err = a.examine(ctx, at)
	}
	if leads = err == nil && c.bringsCode(); leads {
		c.flight = flight
	}
	return c, err
}

// SessionEnded says that a session is over that the verdict let in.
func (a *Authenticator) SessionEnded(v Verdict) { a.stays.end(v.Grants, a.now()) }

// Run tells the store of last uses and purges what ended long ago, until ctx is done;
// then it writes once more. So it should end after the last session.
func (a *Authenticator) Run(ctx context.Context) error {
	write, purge := time.NewTicker(writeEvery), time.NewTicker(purgeEvery)
	defer write.Stop()
	defer purge.Stop()
	for {
		select {
		case <-write.C:
			if err := a.write(ctx); err != nil {
				a.log().Warn("last uses not written, trying again", zap.Error(err))
			}
		case <-purge.C:
			if err := a.purge(ctx); err != nil {
				a.log().Warn("what ended long ago not purged, trying again", zap.Error(err))
			}
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
			defer cancel()
			return a.write(ctx)
		}
	}
}

// write tells the store when grants and app passwords were last used.
func (a *Authenticator) write(ctx context.Context) error {
	if err := errors.Join(a.stays.write(ctx, a.Records, a.now()), a.uses.write(ctx, a.Records)); err != nil {
		return fmt.Errorf("auth: writing last uses: %w", err)
	}
	return nil
}

func (a *Authenticator) purge(ctx context.Context) error {
	err := errors.Join(
		a.Records.PurgeGrants(ctx, a.now().Add(-keepEnded)),
		a.Records.PurgeAppPasswords(ctx, a.now().Add(-keepRevoked)),
	)
	if err != nil {
		return fmt.Errorf("auth: purging: %w", err)
	}
	return nil
}

// examine gathers the facts, lets plan decide, and makes the claim.
func (a *Authenticator) examine(ctx context.Context, at Attempt) (*Claim, error) {
	known, err := a.Records.SignIn(ctx, at.Account)
	if err != nil {
		return nil, fmt.Errorf("auth: reading account %s: %w", at.Account, err)
	}
	account := known.Account
	f := facts{mode: at.Mode, enrolled: account.Enrolled(), freshCode: at.FreshCode}
	c := &Claim{auth: a, attempt: at, password: at.Secret, enrolled: f.enrolled, known: account.Name != "", unsealed: known.Unsealed}
	var shown shownCode
	if f.enrolled {
		if shown, err = a.showsCode(ctx, account, at.Secret); err != nil {
			return nil, err
		}
		c.grants = known.Grants
		if shown.recovery && shown.state == codeSpent { // perhaps since then, by the same login on another connection
			if c.grants, err = a.Records.Grants(ctx, at.Account); err != nil {
				return nil, fmt.Errorf("auth: reading the grants of %s: %w", at.Account, err)
			}
		}
		if at.Repeated && shown.state == codeFresh && !shown.recovery {
			// Or else whoever knows the password tries the same few codes again and again, each of them
			// counted once, until the clock makes one right.
			shown.state = codeWrong
		}
		f.code, f.recovery = shown.state, shown.recovery
		f.grants = a.compare(c.grants, at, shown.front)
		c.familiar = familiar(c.grants, at.Source)
	}

	c.right = f.knows(matchWhole) || f.knows(matchFront) || f.knows(matchSame)

	d := plan(f)
	if d.strip {
		c.password = shown.front
	}
	c.outdated = f.outdated(d.strip)
	switch d.factor {
	case FactorCode:
		c.proof = byCode{account.TOTP.ID, shown.step}
	case FactorRecovery:
		c.proof = byRecovery{account.TOTP.ID, shown.tag}
	case FactorGrant:
		c.proof = byGrant{d.grants, d.same}
	default:
		c.proof = bare{d.lacks, account, shown.code}
	}
	return c, nil
}

// bringsCode says whether the claim has a code to spend.
func (c *Claim) bringsCode() bool {
	switch c.proof.(type) {
	case byCode, byRecovery:
		return true
	}
	return false
}

// ended tells whoever holds sessions.
func (a *Authenticator) ended(r Revocation) {
	if a.Ended != nil && !r.none() {
		a.Ended(r)
	}
}

// decided returns a claim that asks nothing of the upstream.
func (a *Authenticator) decided(at Attempt, v Verdict) *Claim {
	return &Claim{auth: a, attempt: at, familiar: v.Familiar, verdict: &v}
}

func (a *Authenticator) flightKey(at Attempt) flightKey {
	tag, _ := a.Keys.Tag("flight", []byte(at.Account), at.Secret)
	return flightKey{at.Account, a.Grant.network(at.Source), string(tag)}
}

func (a *Authenticator) now() time.Time {
	if a.Now == nil {
		return time.Now()
	}
	return a.Now()
}

func (a *Authenticator) log() *zap.Logger {
	if a.Log == nil {
		return zap.NewNop()
	}
	return a.Log
}

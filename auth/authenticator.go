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

	flights flights
	stays   stays
}

// An Attempt is one presented set of credentials.
type Attempt struct {
	Account   string     // as Names.Canonical made it
	Secret    Secret     // what the client sent as its password; not to be wiped before the claim is settled
	Source    netip.Addr // the client's address
	Mode      Mode       // what the rules ask of it
	FreshCode bool       // grants don't count, but for this very login on its other connections
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
	c, err := a.examine(ctx, at)
	if err != nil || !c.bringsCode() {
		return c, err
	}
	flight, refusal, err := a.flights.lead(ctx, a.flightKey(at))
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
	// Whoever led before may have spent the code since we looked.
	c, err = a.examine(ctx, at)
	if leads = err == nil && c.bringsCode(); leads {
		c.flight = flight
	}
	return c, err
}

// Familiar says whether the account has or had a grant from the source's network, as far
// back as ended grants are kept.
func (a *Authenticator) Familiar(ctx context.Context, account string, source netip.Addr) (bool, error) {
	grants, err := a.Records.Grants(ctx, account)
	if err != nil {
		return false, fmt.Errorf("auth: reading the grants of %s: %w", account, err)
	}
	return familiar(grants, source), nil
}

// SessionEnded says that a session is over that a verdict let in, by the verdict's GrantID.
func (a *Authenticator) SessionEnded(grantID string) { a.stays.end(grantID, a.now()) }

// Run tells the store of last uses and purges what ended long ago, until ctx is done;
// then it writes once more. So it should end after the last session.
func (a *Authenticator) Run(ctx context.Context) error {
	write, purge := time.NewTicker(writeEvery), time.NewTicker(purgeEvery)
	defer write.Stop()
	defer purge.Stop()
	for {
		select {
		case <-write.C:
			if err := a.stays.write(ctx, a.Records, a.now()); err != nil {
				a.log().Warn("last uses of grants not written, trying again", zap.Error(err))
			}
		case <-purge.C:
			if err := a.Records.PurgeGrants(ctx, a.now().Add(-keepEnded)); err != nil {
				a.log().Warn("ended grants not purged, trying again", zap.Error(err))
			}
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
			defer cancel()
			if err := a.stays.write(ctx, a.Records, a.now()); err != nil {
				return fmt.Errorf("auth: writing the last uses of grants: %w", err)
			}
			return nil
		}
	}
}

// examine gathers the facts, lets plan decide, and makes the claim.
func (a *Authenticator) examine(ctx context.Context, at Attempt) (*Claim, error) {
	account, err := a.Records.Account(ctx, at.Account)
	if err != nil && !errors.Is(err, ErrNoAccount) {
		return nil, fmt.Errorf("auth: reading account %s: %w", at.Account, err)
	}
	f := facts{mode: at.Mode, enrolled: account.Enrolled(), freshCode: at.FreshCode}
	c := &Claim{auth: a, attempt: at, password: at.Secret}
	var front Secret
	var code string
	var step int64
	if f.enrolled {
		if c.grants, err = a.Records.Grants(ctx, at.Account); err != nil {
			return nil, fmt.Errorf("auth: reading the grants of %s: %w", at.Account, err)
		}
		var ok bool
		if front, code, ok = splitCode(at.Secret, a.CodeSeparator); ok {
			if f.code, step, err = a.checkCode(account, code, a.now()); err != nil {
				return nil, err
			}
		}
		f.grants = a.compare(c.grants, at, front)
		c.familiar = familiar(c.grants, at.Source)
	}

	d := plan(f)
	if d.strip {
		c.password = front
	}
	switch d.factor {
	case FactorCode:
		c.proof = byCode{account.TOTP.ID, step}
	case FactorGrant:
		c.proof = byGrant{d.grant}
	default:
		c.proof = bare{d.lacks, account, code}
	}
	return c, nil
}

func (c *Claim) bringsCode() bool { _, ok := c.proof.(byCode); return ok }

// decided returns a claim that asks nothing of the upstream.
func (a *Authenticator) decided(at Attempt, v Verdict) *Claim {
	return &Claim{auth: a, attempt: at, familiar: v.Familiar, verdict: &v}
}

func (a *Authenticator) flightKey(at Attempt) flightKey {
	tag := a.Keys.Tag("flight", []byte(at.Account), at.Secret)
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

package auth

import (
	"context"
	"fmt"
	"time"
)

// sameLogin is for how long the same secret from the same source counts as one login:
// a mail program opens its connections within seconds.
const sameLogin = 2 * time.Minute

// byCode is the proof of those who bring a fresh code. It is spent once the upstream
// has said yes, so that nobody can spend it without the password.
type byCode struct {
	totp string // the authenticator's ID
	step int64
}

func (p byCode) accepted(ctx context.Context, c *Claim) (Verdict, error) {
	a, account := c.auth, c.attempt.Account
	grant := a.newGrant(c.attempt, c.password)
	// Room is made before, for nothing may fail after the code is spent.
	if old := surplus(c.grants, grant.ID); len(old) > 0 {
		if err := a.Records.RemoveGrants(ctx, account, old...); err != nil {
			return Verdict{}, fmt.Errorf("auth: removing the oldest grants of %s: %w", account, err)
		}
	}
	won, err := a.Records.SpendStep(ctx, p.totp, p.step, &grant)
	if err != nil {
		return Verdict{}, fmt.Errorf("auth: spending a code of %s: %w", account, err)
	}
	if won {
		return Verdict{Outcome: Accepted, Factor: FactorCode, GrantID: grant.ID}, nil
	}
	// Somebody was quicker. If it was the same login, on another connection and perhaps
	// another machine, then its grant is the one that ours would have been.
	winner, ok, err := a.living(ctx, account, grant.ID)
	if err != nil {
		return Verdict{}, err
	}
	if ok && (!c.attempt.FreshCode || a.recent(winner)) {
		return Verdict{Outcome: Accepted, Factor: FactorGrant, GrantID: winner.ID}, nil
	}
	return c.without(ReplayedCode), nil
}

func (byCode) denied(context.Context, *Claim) error { return nil }

// checkCode asks the account's authenticator about a code, and returns the step of a
// fresh one.
func (a *Authenticator) checkCode(account Account, code string, now time.Time) (codeState, int64, error) {
	secret, err := a.sharedSecret(account)
	if err != nil {
		return codeAbsent, 0, err
	}
	defer secret.Wipe()
	state, step := stateOf(code, secret, now, account.TOTP.LastStep)
	return state, step, nil
}

func stateOf(code string, secret Secret, now time.Time, lastStep int64) (codeState, int64) {
	if step, ok := matchStep(code, secret, now, lastStep); ok {
		return codeFresh, step
	}
	oldest, newest := stepOf(now.Add(-sameLogin))-1, stepOf(now)+1
	if rightAt(code, secret, oldest, min(lastStep, newest)) {
		return codeSpent, 0
	}
	return codeWrong, 0
}

// sharedSecret opens the secret that the account's authenticator app holds too.
func (a *Authenticator) sharedSecret(account Account) (Secret, error) {
	return a.Keys.Open(totpPurpose, account.Name, account.TOTP.ID, account.TOTP.Sealed)
}

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
	return c.spend(ctx, Verdict{Outcome: Accepted, Factor: FactorCode}, func(grants []Grant, _ *Verdict) (bool, error) {
		won, err := c.auth.Records.SpendStep(ctx, p.totp, p.step, grants...)
		if err != nil {
			return false, fmt.Errorf("auth: spending a code of %s: %w", c.attempt.Account, err)
		}
		return won, nil
	})
}

func (byCode) denied(ctx context.Context, c *Claim) (Reason, error) {
	return WrongPassword, c.changed(ctx)
}

// spend spends a code, and what it gives is written with it: v with the grants, where nobody
// was quicker.
func (c *Claim) spend(ctx context.Context, v Verdict, spend func([]Grant, *Verdict) (won bool, err error)) (Verdict, error) {
	a := c.auth
	given := a.newGrants(c.attempt, c.password, a.now())
	// Room is made before, for nothing may fail after the code is spent.
	if err := c.makeRoom(ctx, given); err != nil {
		return Verdict{}, err
	}
	won, err := spend(given, &v)
	if err != nil {
		return Verdict{}, err
	}
	if won {
		for _, g := range given {
			v.Grants = append(v.Grants, g.ID)
		}
		return v, nil
	}
	// Somebody was quicker. If it was the same login, on another connection and perhaps
	// another machine, then its grant is the one that ours would have been.
	winner, ok, err := a.living(ctx, c.attempt.Account, given[0].ID)
	switch {
	case err != nil:
		return Verdict{}, err
	case ok && a.Grant.forLogins():
		return c.shared(ctx, []Grant{winner})
	case ok && (!c.attempt.FreshCode || a.recent(winner)):
		return underGrants([]Grant{winner}), nil
	}
	return c.without(ReplayedCode), nil
}

// A shownCode is what a secret ends in.
type shownCode struct {
	front    Secret // what stands before it; nil: there is none
	code     string
	recovery bool
	state    codeState
	step     int64  // of a fresh code
	tag      []byte // of a fresh recovery code
}

// showsCode asks the account's authenticator about the end of a secret.
func (a *Authenticator) showsCode(ctx context.Context, account Account, whole Secret) (shownCode, error) {
	front, code, recovery, ok := splitCode(whole, a.CodeSeparator)
	if !ok {
		return shownCode{}, nil
	}
	secret, err := a.sharedSecret(account)
	if err != nil {
		return shownCode{}, err
	}
	defer secret.Wipe()
	if recovery {
		return a.showsRecovery(ctx, account, front, code, secret)
	}
	state, step := stateOf(code, secret, a.now(), account.TOTP.LastStep)
	return shownCode{front: front, code: code, state: state, step: step}, nil
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

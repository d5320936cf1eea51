package auth

import (
	"context"
	"time"
)

// staleDay is how far back we look for the moment at which a code was right,
// where no grant says when: 2,880 steps, some milliseconds.
const staleDay = 24 * time.Hour

// bare is the proof of those who bring no second factor that counts.
type bare struct {
	lacks   Reason // "" where none is asked of them
	account Account
	code    string // the digits that were not right
}

func (b bare) accepted(_ context.Context, c *Claim) (Verdict, error) {
	if b.lacks != WrongCode {
		return c.without(b.lacks), nil
	}
	// A mail program goes on with the code that it has stored. That is no guess, and must
	// not count as one; but whoever knows the password and tries codes does guess.
	// So the authenticator itself must say that the code was right once.
	secret, err := c.auth.sharedSecret(b.account)
	if err != nil {
		return Verdict{}, err
	}
	defer secret.Wipe()
	if b.stale(secret, c.grants, c.auth.now()) {
		return c.without(Expired), nil
	}
	return c.without(WrongCode), nil
}

func (bare) denied(ctx context.Context, c *Claim) (Reason, error) {
	return WrongPassword, c.changed(ctx)
}

// stale says whether the code was right within the last day, or when one of the grants
// was given; that took a minute at most, from the code to the upstream's yes.
func (b bare) stale(secret Secret, grants []Grant, now time.Time) bool {
	for _, g := range grants {
		if given := stepOf(g.Created); rightAt(b.code, secret, given-2, given+1) {
			return true
		}
	}
	return rightAt(b.code, secret, stepOf(now.Add(-staleDay)), stepOf(now))
}

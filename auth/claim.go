package auth

import (
	"context"
	"fmt"
	"io"
)

// Outcome is how a login was decided; the zero value is Refused.
type Outcome int

// The outcomes.
const (
	Refused Outcome = iota
	Accepted
)

// String returns the name that the audit uses.
func (o Outcome) String() string {
	if o == Accepted {
		return "accepted"
	}
	return "refused"
}

// A Verdict is the decision about one attempt.
type Verdict struct {
	Outcome     Outcome
	Reason      Reason // why it was refused
	Factor      Factor // what let it in beside the password
	WouldRefuse Reason // let in by observe mode alone; Required had refused for this reason
	Familiar    bool   // the account has or had a grant from the source's network

	// What the session lives under: it ends with them, see Revocation.
	Grants      []string // IDs
	AppPassword string   // ID, also where it is refused; "" where there is none

	ReadOnly     bool // the app password doesn't let change anything
	RecoveryLeft int  // for FactorRecovery: so many codes are left
}

// refused is the verdict for an expected no.
func refused(reason Reason) Verdict { return Verdict{Reason: reason, Factor: FactorNone} }

// A Claim is an attempt that was examined and waits for the upstream's word on the
// password: ask the upstream with Password, then call Accept or Deny. Release it in
// any case, or those who wait with the same secret wait until their deadline. A
// claim belongs to one goroutine, and its password to whoever made the attempt.
type Claim struct {
	auth     *Authenticator
	attempt  Attempt
	password Secret
	proof    proof
	grants   []Grant  // of the account, as examined
	outdated []string // of these, those that a no of the upstream proves to be for a password of before
	familiar bool
	enrolled bool
	right    bool     // a grant knows the password: it is right, unless it was changed
	known    bool     // there is a record of the account
	unsealed bool     // an app password of the account waits for its upstream password
	app      string   // the ID of the app password that was brought, also where it is refused
	opened   Secret   // a password from the vault, which is ours to wipe
	master   bool     // the upstream is asked as its master user
	flight   *flight  // where this claim leads one
	verdict  *Verdict // once there is one
}

// A proof is what an attempt brings beside its password, and settles the claim once
// the upstream has judged that. Each factor is a type of its own in a file of
// its own, chosen in Authenticator.examine.
type proof interface {
	// accepted decides about a right password.
	accepted(ctx context.Context, c *Claim) (Verdict, error)
	// denied does what a wrong password calls for, and says why it is refused.
	denied(ctx context.Context, c *Claim) (Reason, error)
}

// Password returns what the upstream is asked: the secret, or what stands before
// the code, or what the vault holds for an app password. It is not to be used after Release.
func (c *Claim) Password() Secret { return c.password }

// Master says that the upstream is to be asked as its master user, without a password
// of the account: an app password has been proved, and Attempt.Master was set.
func (c *Claim) Master() bool { return c.master }

// Worth is what a claim is worth if the upstream finds the password right.
type Worth int

// The worths.
const (
	WorthNothing  Worth = iota // it will be refused all the same: a second factor is missing
	WorthPassword              // none is asked for: the upstream's word alone decides
	WorthCode                  // it brings a right code, unspent
	WorthGrant                 // a grant knows the password, or it is a good app password or recovery code
)

// Worth says what the upstream's yes would be worth, so that it needn't be asked for nothing.
func (c *Claim) Worth() Worth {
	switch p := c.proof.(type) {
	case byCode:
		return WorthCode
	case byGrant, byAppPassword, byRecovery: // none of these can be guessed
		return WorthGrant
	case bare:
		if p.lacks == "" || c.attempt.Mode == Observe {
			return WorthPassword
		}
	}
	return WorthNothing
}

// IsFamiliar says whether the account has or had a grant from the source's network, or the app
// password was used from there.
func (c *Claim) IsFamiliar() bool { return c.familiar }

// IsRight says whether the password is known to be the account's without the upstream's word: a
// grant, perhaps one that has ended, was given for it. It may have been changed since.
func (c *Claim) IsRight() bool { return c.right }

// IsKnown says whether there is a record of the account. Of an attempt with an app password that
// isn't found out.
func (c *Claim) IsKnown() bool { return c.known || c.app != "" }

// Decided returns the verdict, once there is one. A claim may come decided: then the
// upstream isn't asked, as it has just refused the same secret on another
// connection, or as there is nothing to ask.
func (c *Claim) Decided() (Verdict, bool) {
	if c.verdict == nil {
		return Verdict{Factor: FactorNone}, false
	}
	return *c.verdict, true
}

// Accept says that the upstream found the password right, and returns the verdict,
// which is durable by then: the code is spent, its grant written. After an error
// nobody comes in, and the client is told to come back later. A session that
// is let in must be reported with Authenticator.SessionEnded when it is over.
func (c *Claim) Accept(ctx context.Context) (Verdict, error) {
	if c.verdict != nil {
		return *c.verdict, nil
	}
	v, err := c.proof.accepted(ctx, c)
	if err != nil {
		return Verdict{Factor: FactorNone, Familiar: c.familiar}, err
	}
	c.seal(ctx, v)
	return c.settle(v), nil
}

// Deny says that the upstream found the password wrong. The verdict stands, also
// beside an error, which then says that a grant could not be ended.
func (c *Claim) Deny(ctx context.Context) (Verdict, error) {
	if c.verdict != nil {
		return *c.verdict, nil
	}
	reason, err := c.proof.denied(ctx, c)
	return c.settle(refused(reason)), err
}

// Release gives up a claim that has no verdict, such as when the upstream failed: the
// next one that waits with the same secret takes its turn. It may be called at
// any time and more than once.
func (c *Claim) Release() {
	c.flight.land(nil)
	c.opened.Wipe()
}

// Format prints stars: the claim holds a password in a private field.
func (c *Claim) Format(f fmt.State, _ rune) { io.WriteString(f, stars) }

func (c *Claim) settle(v Verdict) Verdict {
	v.Familiar, v.AppPassword = c.familiar, c.app
	c.verdict = &v
	if v.Outcome == Accepted {
		c.auth.stays.begin(v.Grants, c.auth.now())
		c.flight.land(nil)
	} else {
		c.flight.land(&v)
	}
	return v
}

// seal puts a password that has just proved right into the vault, for the account's app
// passwords. What a second factor has just vouched for goes to all of them; otherwise, to those
// that have none or one that the upstream has refused. A login in observe mode
// that lacked its second factor vouches for nothing.
func (c *Claim) seal(ctx context.Context, v Verdict) {
	switch {
	case v.Outcome != Accepted, v.Factor == FactorAppPassword, c.attempt.Master: // who has a master user needs no vault
	case v.Factor == FactorCode, v.Factor == FactorRecovery:
		if known := c.auth.sealed.holds(c.attempt.Account, c.password); c.unsealed || !known {
			c.auth.sealAnew(ctx, c.attempt.Account, c.password, !known)
		}
	case c.unsealed && (v.Factor == FactorGrant || !c.enrolled && v.WouldRefuse == ""):
		c.auth.sealAnew(ctx, c.attempt.Account, c.password, false)
	}
}

// changed is what a no of the upstream to a password calls for that grants know: it was
// changed there, so these end, and so do the sessions under them.
func (c *Claim) changed(ctx context.Context) error {
	if len(c.outdated) == 0 {
		return nil
	}
	removed, err := c.auth.Records.RemoveGrants(ctx, c.attempt.Account, c.outdated...)
	if err != nil {
		return fmt.Errorf("auth: ending grants of %s: %w", c.attempt.Account, err)
	}
	c.auth.ended(Revocation{Account: c.attempt.Account, Grants: removed})
	return nil
}

// without is the verdict for a right password and no second factor.
func (c *Claim) without(lacks Reason) Verdict {
	if lacks != "" && c.attempt.Mode != Observe {
		return refused(lacks)
	}
	return Verdict{Outcome: Accepted, Factor: FactorNone, WouldRefuse: lacks}
}

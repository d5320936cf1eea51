package auth

// A Reason says why somebody was refused, from a closed set: it stands in the
// audit and in metrics, and no client ever reads it.
type Reason string

// Why a login is refused.
const (
	WrongPassword Reason = "wrong-password" // the upstream said no
	NotEnrolled   Reason = "not-enrolled"   // a second factor is required, and the account has none
	NoCode        Reason = "no-code"        // right password, nothing else
	WrongCode     Reason = "wrong-code"     // right password, and a code that never was right: a guess
	ReplayedCode  Reason = "replayed-code"  // right password, and a code that was used already
	Expired       Reason = "expired"        // right password, and a code or grant that was right once: not a guess

	UnknownAppPassword Reason = "unknown-app-password"     // the shape of one, and nobody's, or another account's: a guess
	RevokedAppPassword Reason = "revoked-app-password"     // it was good once
	ExpiredAppPassword Reason = "expired-app-password"     // it was good once
	ForeignNetwork     Reason = "app-password-network"     // good, and not from there
	MistypedPassword   Reason = "app-password-typo"        // the shape of an app password with a wrong checksum
	NotSealed          Reason = "password-not-sealed"      // good, and the vault doesn't hold the account's password yet
	SealedOutdated     Reason = "sealed-password-outdated" // good, and the upstream refused the password from the vault
)

// IsGuess says whether a login refused for that reason tells of somebody who tries what may be
// right. What was right once is no guess, nor is what can't be.
func (r Reason) IsGuess() bool {
	switch r {
	case WrongPassword, NotEnrolled, NoCode, WrongCode, ReplayedCode, UnknownAppPassword:
		return true
	}
	return false
}

// IsLocal says whether a login may be refused for it without the upstream's word.
func (r Reason) IsLocal() bool {
	switch r {
	case UnknownAppPassword, RevokedAppPassword, ExpiredAppPassword, ForeignNetwork, MistypedPassword, NotSealed, SealedOutdated:
		return true
	}
	return false
}

// Why a change to an account is refused; BadName is also for logins.
const (
	BadName         Reason = "bad-name"
	NoSuchAccount   Reason = "no-such-account"
	AlreadyEnrolled Reason = "already-enrolled"
	NoEnrolment     Reason = "no-enrolment" // there is nothing to confirm
	TooMany         Reason = "too-many"     // app passwords of one account
	NotFound        Reason = "not-found"    // no such app password, grant or session
	BadValue        Reason = "bad-value"    // a label, network or time that can't be
)

// A Refusal is an expected no, as an error: errors.As tells it from a failure,
// where we couldn't tell.
type Refusal struct {
	Reason  Reason
	Message string // for the person who asked: what is wrong and what to do
}

// Error returns the message.
func (r *Refusal) Error() string { return r.Message }

func refuse(reason Reason, message string) error { return &Refusal{reason, message} }

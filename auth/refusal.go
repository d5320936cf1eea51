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
)

// Why a change to an account is refused; BadName is also for logins.
const (
	BadName         Reason = "bad-name"
	NoSuchAccount   Reason = "no-such-account"
	AlreadyEnrolled Reason = "already-enrolled"
	NoEnrolment     Reason = "no-enrolment" // there is nothing to confirm
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

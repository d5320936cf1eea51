package auth

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// ErrNoAccount says that the store knows no account of that name.
var ErrNoAccount = errors.New("auth: no such account")

// An Account is what we know of one mailbox owner. An owner without a record
// here is an ordinary case: the upstream knows the account, we don't.
type Account struct {
	Name    string // as Names.Canonical made it
	Created time.Time
	TOTP    *TOTP // nil: never enrolled
}

// Enrolled says whether codes are asked of the account: its owner has shown one.
func (a Account) Enrolled() bool { return a.TOTP != nil && !a.TOTP.Confirmed.IsZero() }

// TOTP is one authenticator (RFC 6238: SHA-1, six digits, steps of 30 s).
type TOTP struct {
	ID        string // random; a reset makes another
	Sealed    []byte // the shared secret, sealed by Keys with account and ID as additional data
	Created   time.Time
	Confirmed time.Time // zero: enrolment has begun, no code was shown yet
	LastStep  int64     // the newest time step whose code was used; no older one counts again
}

// A Grant says: this account passed a second factor from here.
type Grant struct {
	ID      string
	Account string
	Network netip.Prefix
	// PasswordTag is a keyed tag of the password that the grant was given for,
	// so that we know it again, with or without a stale code at its end.
	PasswordTag []byte
	Created     time.Time
	Expires     time.Time // the absolute end
	LastUsed    time.Time // the end of the last session under it, as far as written down
}

// Accounts is where account records live.
type Accounts interface {
	// Account returns the record of that name, or ErrNoAccount.
	Account(ctx context.Context, name string) (Account, error)
	// Accounts returns at most limit records whose names come after the given one, by name.
	Accounts(ctx context.Context, after string, limit int) ([]Account, error)
	// PutAccount creates the record or replaces it whole, its authenticator included.
	PutAccount(ctx context.Context, a Account) error
	// RemoveAccount removes the record and its grants, or says ErrNoAccount.
	RemoveAccount(ctx context.Context, name string) error
}

// Codes makes each code count once. Both methods are durable when they return,
// and of any number of callers with the same step one wins.
type Codes interface {
	// SpendStep sets LastStep of the authenticator where it is older than step, and in the
	// same transaction puts g (nil: nothing). won is false, and nothing is written,
	// where the step or a newer one was used before or no such authenticator exists.
	SpendStep(ctx context.Context, totp string, step int64, g *Grant) (won bool, err error)
	// Confirm is SpendStep that also sets Confirmed, for the first code of an enrolment.
	Confirm(ctx context.Context, totp string, step int64, at time.Time) (won bool, err error)
}

// Grants is where grants live.
type Grants interface {
	// Grants returns all grants of the account, oldest first, ended ones included until purged.
	Grants(ctx context.Context, account string) ([]Grant, error)
	// PutGrant creates the grant or replaces the one with its ID.
	PutGrant(ctx context.Context, g Grant) error
	// TouchGrants sets LastUsed of each grant named, where that is later; unknown IDs are no error.
	TouchGrants(ctx context.Context, lastUsed map[string]time.Time) error
	// RemoveGrants removes the named grants of the account, or all where none is named.
	RemoveGrants(ctx context.Context, account string, ids ...string) error
	// PurgeGrants removes those that expired before the given time.
	PurgeGrants(ctx context.Context, before time.Time) error
}

// Marks holds small facts about the store itself, such as the id of the key that seals it.
type Marks interface {
	// Mark returns the value under name, or "" where there is none.
	Mark(ctx context.Context, name string) (string, error)
	// SetMark creates or replaces it.
	SetMark(ctx context.Context, name, value string) error
}

// Records is everything that a store keeps for this package.
type Records interface {
	Accounts
	Codes
	Grants
	Marks
}

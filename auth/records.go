package auth

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// ErrNoAccount says that the store knows no account of that name.
var ErrNoAccount = errors.New("auth: no such account")

// ErrNoAppPassword says that the store knows no app password with that tag.
var ErrNoAppPassword = errors.New("auth: no such app password")

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

// A RecoveryCode stands for a code once, where the authenticator is out of reach.
type RecoveryCode struct {
	Tag  []byte    // by which we know it again
	Used time.Time // zero: not yet
}

// A Grant says: this account passed a second factor from here.
type Grant struct {
	ID      string
	Account string
	Network netip.Prefix // where the second factor was shown
	// Client is a keyed tag of a TLS client's id: the grant goes where that client goes.
	// Empty: it is for the whole network.
	Client []byte
	// KeyID is the key of PasswordTag and Client; "" in grants from before there could be two.
	KeyID string
	// PasswordTag is a keyed tag of the password that the grant was given for,
	// so that we know it again, with or without a stale code at its end.
	PasswordTag []byte
	Created     time.Time
	Expires     time.Time // the absolute end
	LastUsed    time.Time // the end of the last session under it, as far as written down
}

// An AppPassword is what we know of a secret that was issued to one device. The secret
// itself is nowhere but there.
type AppPassword struct {
	ID      string
	Account string
	Label   string
	Tag     []byte // keyed, of what is derived from the secret; unique
	KeyID   string // the key of Tag and PublicTag
	Public  []byte // X25519, derived from the secret; what Sealed is sealed to
	// PublicTag vouches for Public, keyed: whoever can write to the store must not have passwords
	// sealed to a key of theirs.
	PublicTag []byte
	Sealed    []byte         // the account's upstream password; none: not sealed yet
	Stale     bool           // the upstream has refused what is in Sealed
	Networks  []netip.Prefix // where it may come from; none: from everywhere
	ReadOnly  bool
	Created   time.Time
	Expires   time.Time // zero: never
	Revoked   time.Time // zero: it isn't; else Public and Sealed are gone
	LastUse   Use       // as far as written down
}

// A Use is when and by whom something was used.
type Use struct {
	Time    time.Time // zero: never
	Source  netip.Addr
	Program string // what it said of itself with ID, "" where it said nothing
}

// A SignIn is what a login needs to know of an account, in one step.
type SignIn struct {
	Account  Account // the zero value where there is no record
	Grants   []Grant // all of the account, oldest first, ended ones included until purged
	Unsealed bool    // one of its app passwords that aren't revoked has nothing in Sealed, or is Stale
}

// Accounts is where account records live.
type Accounts interface {
	// SignIn returns what is known of the account; that there is no record of it is no error.
	SignIn(ctx context.Context, name string) (SignIn, error)
	// Account returns the record of that name, or ErrNoAccount.
	Account(ctx context.Context, name string) (Account, error)
	// Accounts returns at most limit records whose names come after the given one, by name.
	Accounts(ctx context.Context, after string, limit int) ([]Account, error)
	// PutAccount creates the record or replaces it whole, its authenticator included, whose
	// recovery codes are then those with the given tags.
	PutAccount(ctx context.Context, a Account, recovery ...[]byte) error
	// RemoveAccount removes the record, its grants, app passwords and homes, or says ErrNoAccount.
	RemoveAccount(ctx context.Context, name string) error
}

// Codes makes each code count once. What spends is durable when it returns, and of any
// number of callers with the same step or recovery code one wins.
type Codes interface {
	// SpendStep sets LastStep of the authenticator where it is older than step, and in the
	// same transaction puts the grants. won is false, and nothing is written,
	// where the step or a newer one was used before or no such authenticator exists.
	SpendStep(ctx context.Context, totp string, step int64, grants ...Grant) (won bool, err error)
	// Confirm is SpendStep that also sets Confirmed, for the first code of an enrolment.
	Confirm(ctx context.Context, totp string, step int64, at time.Time) (won bool, err error)
	// RecoveryCodes returns those of the authenticator, used ones included, in no order.
	RecoveryCodes(ctx context.Context, totp string) ([]RecoveryCode, error)
	// SpendRecovery sets Used of the recovery code with that tag, and in the same transaction
	// puts the grants. won is false, and nothing is written, where it is used or unknown. left
	// is how many unused ones remain.
	SpendRecovery(ctx context.Context, totp string, tag []byte, at time.Time, grants ...Grant) (left int, won bool, err error)
	// PutRecovery replaces the authenticator's recovery codes, used ones included, by unused ones
	// with these tags. known is false, and nothing is written, where no such authenticator exists.
	PutRecovery(ctx context.Context, totp string, tags [][]byte) (known bool, err error)
	// Reseal replaces what is sealed of the authenticator where it still is old. Its ID stays.
	Reseal(ctx context.Context, totp string, old, sealed []byte) (won bool, err error)
}

// Grants is where grants live.
type Grants interface {
	// Grants returns all grants of the account, oldest first, ended ones included until purged.
	Grants(ctx context.Context, account string) ([]Grant, error)
	// PutGrant creates the grant or replaces the one with its ID.
	PutGrant(ctx context.Context, g Grant) error
	// TouchGrants sets LastUsed of each grant named, where that is later; unknown IDs are no error.
	TouchGrants(ctx context.Context, lastUsed map[string]time.Time) error
	// RemoveGrants removes the named grants of the account, or all where none is named, and
	// returns the IDs of those that it removed.
	RemoveGrants(ctx context.Context, account string, ids ...string) (removed []string, err error)
	// PurgeGrants removes those that expired before the given time.
	PurgeGrants(ctx context.Context, before time.Time) error
}

// AppPasswords is where app passwords live.
type AppPasswords interface {
	// AppPassword returns the one with that tag, revoked and expired ones included, or ErrNoAppPassword.
	AppPassword(ctx context.Context, tag []byte) (AppPassword, error)
	// AppPasswords returns all of the account, oldest first, revoked and expired ones included until purged.
	AppPasswords(ctx context.Context, account string) ([]AppPassword, error)
	// AddAppPassword creates it, and the account's record where there is none, unless the account
	// has most already that are neither revoked nor, at its Created, expired: added is then false.
	AddAppPassword(ctx context.Context, p AppPassword, most int) (added bool, err error)
	// RevokeAppPassword sets Revoked and takes Public and Sealed away. known is false where the
	// account has no such one that isn't revoked.
	RevokeAppPassword(ctx context.Context, account, id string, at time.Time) (known bool, err error)
	// SealAppPasswords sets Sealed, by ID, and clears Stale, of those of the account that aren't
	// revoked; all of them, or none.
	SealAppPasswords(ctx context.Context, account string, sealed map[string][]byte) error
	// StaleAppPassword sets Stale where Sealed still is what was tried; unknown IDs are no error.
	StaleAppPassword(ctx context.Context, id string, tried []byte) error
	// RetagAppPassword sets Tag, PublicTag and KeyID; unknown IDs are no error.
	RetagAppPassword(ctx context.Context, id string, tag, publicTag []byte, keyID string) error
	// UseAppPasswords sets LastUse of each app password named, where that is later; unknown IDs are no error.
	UseAppPasswords(ctx context.Context, uses map[string]Use) error
	// PurgeAppPasswords removes those that were revoked or expired before the given time.
	PurgeAppPasswords(ctx context.Context, before time.Time) error
}

// Marks holds small facts about the store itself, such as the id of the key that seals it.
type Marks interface {
	// Mark returns the value under name, or "" where there is none.
	Mark(ctx context.Context, name string) (string, error)
	// SetMark creates or replaces it.
	SetMark(ctx context.Context, name, value string) error
	// TagKeys returns the KeyID of every grant, and of every app password that isn't revoked, each once.
	TagKeys(ctx context.Context) ([]string, error)
}

// Records is everything that a store keeps for this package.
type Records interface {
	Accounts
	Codes
	Grants
	AppPasswords
	Marks
}

package auth

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

const totpIDSize = 16

// A Directory administers accounts, for the command line and the admin socket. Its
// methods take names as people type them; an expected no is a *Refusal.
type Directory struct {
	Records Records
	Keys    *Keys
	Names   Names
	Issuer  string                        // what authenticator apps show beside the account: our host name
	Grant   GrantSettings                 // to know which grants live
	Now     func() time.Time              // nil: time.Now
	Audit   func(context.Context, Change) // nil: nobody is told
	Ended   func(Revocation)              // told what sessions have lost; nil: there are none
}

// A Change is one thing that was done to an account, or was to be done.
type Change struct {
	Kind    string // such as "account.enroll": what the command line calls it
	Account string // "" where the name was none
	Err     error  // nil: done; a *Refusal: refused; any other: failed
}

// A Summary is what may be shown of an account.
type Summary struct {
	Account   string    `json:"account"`
	Enrolled  bool      `json:"enrolled"`
	Pending   bool      `json:"pending"` // enrolment has begun, no code was shown yet
	Created   time.Time `json:"created,omitzero"`
	Confirmed time.Time `json:"confirmed,omitzero"`
	Grants    int       `json:"grants"` // that live, as far as the store knows

	AppPasswords  int `json:"app_passwords"`  // neither revoked nor expired
	RecoveryCodes int `json:"recovery_codes"` // that are left
}

// An Enrolment is what the owner of an account puts into an authenticator app. It
// is shown once and is nowhere to be had again.
type Enrolment struct {
	Account       string   `json:"account"`
	Secret        string   `json:"secret"` // base32, to be typed
	URI           string   `json:"uri"`    // otpauth, for a QR code
	RecoveryCodes []string `json:"recovery_codes"`
}

// List returns at most limit accounts whose names come after the given one, by name.
func (d *Directory) List(ctx context.Context, after string, limit int) ([]Summary, error) {
	accounts, err := d.Records.Accounts(ctx, after, limit)
	if err != nil {
		return nil, fmt.Errorf("auth: listing accounts: %w", err)
	}
	list := make([]Summary, len(accounts))
	for i, account := range accounts {
		if list[i], err = d.summary(ctx, account); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Show returns one account.
func (d *Directory) Show(ctx context.Context, name string) (Summary, error) {
	name, err := d.Names.Canonical(name)
	if err != nil {
		return Summary{}, err
	}
	account, err := d.account(ctx, name)
	if err != nil {
		return Summary{}, err
	}
	return d.summary(ctx, account)
}

// Enroll gives the account a new authenticator, which counts once a code of it has
// been confirmed, or at once if confirmed is set. One that waits for its
// first code is replaced; one that counts is not.
func (d *Directory) Enroll(ctx context.Context, name string, confirmed bool) (Enrolment, error) {
	var e Enrolment
	err := d.change(ctx, "account.enroll", name, func(name string) (err error) {
		e, err = d.enroll(ctx, name, confirmed)
		return err
	})
	return e, err
}

func (d *Directory) enroll(ctx context.Context, name string, confirmed bool) (Enrolment, error) {
	now := d.now()
	account, err := d.Records.Account(ctx, name)
	switch {
	case errors.Is(err, ErrNoAccount):
		account = Account{Name: name, Created: now}
	case err != nil:
		return Enrolment{}, fmt.Errorf("auth: reading account %s: %w", name, err)
	case account.Enrolled():
		return Enrolment{}, refuse(AlreadyEnrolled, name+" is already enrolled; "+
			"to give it another authenticator, run: imapwarden account reset "+name)
	}

	secret := Secret(random(secretSize))
	defer secret.Wipe()
	uri, err := otpauthURI(d.Issuer, name, secret)
	if err != nil {
		return Enrolment{}, err
	}
	id := hex.EncodeToString(random(totpIDSize))
	account.TOTP = &TOTP{ID: id, Sealed: d.Keys.Seal(totpPurpose, name, id, secret), Created: now}
	if confirmed {
		account.TOTP.Confirmed = now
	}
	codes, tags := newRecovery(secret)
	if err := d.Records.PutAccount(ctx, account, tags...); err != nil {
		return Enrolment{}, fmt.Errorf("auth: writing account %s: %w", name, err)
	}
	// A login on its way may have put one while the authenticator of before was taken away.
	if _, err := d.Records.RemoveGrants(ctx, name); err != nil {
		return Enrolment{}, fmt.Errorf("auth: removing the grants of %s: %w", name, err)
	}
	return Enrolment{name, encodeSecret(secret), uri, codes}, nil
}

// RenewRecovery gives the account's authenticator new recovery codes and returns them; the
// old ones don't count any more.
func (d *Directory) RenewRecovery(ctx context.Context, name string) (codes []string, err error) {
	err = d.change(ctx, "account.recovery", name, func(name string) (err error) {
		codes, err = d.renewRecovery(ctx, name)
		return err
	})
	return codes, err
}

func (d *Directory) renewRecovery(ctx context.Context, name string) ([]string, error) {
	account, err := d.account(ctx, name)
	switch {
	case err != nil:
		return nil, err
	case account.TOTP == nil:
		return nil, refuse(NoEnrolment, name+" has no authenticator that recovery codes could stand for; "+
			"to enrol it, run: imapwarden account enroll "+name)
	}
	secret, err := d.Keys.Open(totpPurpose, name, account.TOTP.ID, account.TOTP.Sealed)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe()
	codes, tags := newRecovery(secret)
	known, err := d.Records.PutRecovery(ctx, account.TOTP.ID, tags)
	if err != nil {
		return nil, fmt.Errorf("auth: writing the recovery codes of %s: %w", name, err)
	}
	if !known {
		return nil, refuse(NoEnrolment, "the authenticator of "+name+" was taken away meanwhile")
	}
	return codes, nil
}

// Confirm ends an enrolment with a first code, which it spends.
func (d *Directory) Confirm(ctx context.Context, name, code string) error {
	return d.change(ctx, "account.confirm", name, func(name string) error {
		return d.confirm(ctx, name, strings.ReplaceAll(code, " ", "")) // apps show 123 456
	})
}

func (d *Directory) confirm(ctx context.Context, name, code string) error {
	account, err := d.account(ctx, name)
	switch {
	case err != nil:
		return err
	case account.TOTP == nil:
		return refuse(NoEnrolment, "there is nothing to confirm for "+name+
			"; to begin, run: imapwarden account enroll "+name)
	case account.Enrolled():
		return refuse(AlreadyEnrolled, name+" is already enrolled and confirmed")
	}
	secret, err := d.Keys.Open(totpPurpose, name, account.TOTP.ID, account.TOTP.Sealed)
	if err != nil {
		return err
	}
	defer secret.Wipe()
	now := d.now()
	state, step := stateOf(code, secret, now, account.TOTP.LastStep)
	switch state {
	case codeSpent:
		return refuse(ReplayedCode, "that code was used already; wait for the next one")
	case codeFresh:
	default:
		return refuse(WrongCode, "that code is not right; "+
			"check that the clocks of this machine and of the app's device are")
	}
	won, err := d.Records.Confirm(ctx, account.TOTP.ID, step, now)
	if err != nil {
		return fmt.Errorf("auth: confirming the enrolment of %s: %w", name, err)
	}
	if !won {
		return refuse(ReplayedCode, "that code was used already, or the enrolment was begun anew; wait for the next code")
	}
	return nil
}

// Reset takes authenticator, recovery codes and grants from the account, for one whose device
// is lost, and ends the sessions that its own password let in. App passwords stay: they belong
// to other devices. It does no harm to do it again.
func (d *Directory) Reset(ctx context.Context, name string) error {
	return d.change(ctx, "account.reset", name, func(name string) error {
		account, err := d.account(ctx, name)
		if err != nil {
			return err
		}
		// First the authenticator: once it is gone, no login can put another grant.
		account.TOTP = nil
		if err := d.Records.PutAccount(ctx, account); err != nil {
			return fmt.Errorf("auth: writing account %s: %w", name, err)
		}
		if _, err := d.Records.RemoveGrants(ctx, name); err != nil {
			return fmt.Errorf("auth: removing the grants of %s: %w", name, err)
		}
		d.ended(Revocation{Account: name, MainLogins: true})
		return nil
	})
}

// Remove forgets the account with all that belongs to it, and ends its sessions. The
// upstream still knows it.
func (d *Directory) Remove(ctx context.Context, name string) error {
	return d.change(ctx, "account.remove", name, func(name string) error {
		err := d.Records.RemoveAccount(ctx, name)
		if errors.Is(err, ErrNoAccount) {
			return noSuchAccount(name)
		}
		if err != nil {
			return fmt.Errorf("auth: removing account %s: %w", name, err)
		}
		d.ended(Revocation{Account: name, All: true})
		return nil
	})
}

// change does something to an account under its canonical name, and tells Audit what
// came of it.
func (d *Directory) change(ctx context.Context, kind, name string, do func(name string) error) error {
	name, err := d.Names.Canonical(name)
	if err == nil {
		err = do(name)
	}
	if d.Audit != nil {
		d.Audit(ctx, Change{kind, name, err})
	}
	return err
}

func (d *Directory) account(ctx context.Context, name string) (Account, error) {
	account, err := d.Records.Account(ctx, name)
	if errors.Is(err, ErrNoAccount) {
		return Account{}, noSuchAccount(name)
	}
	if err != nil {
		return Account{}, fmt.Errorf("auth: reading account %s: %w", name, err)
	}
	return account, nil
}

func (d *Directory) summary(ctx context.Context, account Account) (Summary, error) {
	s := Summary{
		Account: account.Name, Created: account.Created,
		Enrolled: account.Enrolled(), Pending: account.TOTP != nil && !account.Enrolled(),
	}
	if account.Enrolled() {
		s.Confirmed = account.TOTP.Confirmed
	}
	grants, err := d.Records.Grants(ctx, account.Name)
	if err != nil {
		return Summary{}, fmt.Errorf("auth: reading the grants of %s: %w", account.Name, err)
	}
	for _, g := range grants {
		if !g.forLogin() && d.Grant.lives(g, g.LastUsed, d.now()) {
			s.Grants++
		}
	}
	apps, err := d.Records.AppPasswords(ctx, account.Name)
	if err != nil {
		return Summary{}, fmt.Errorf("auth: reading the app passwords of %s: %w", account.Name, err)
	}
	for _, p := range apps {
		if p.Revoked.IsZero() && (p.Expires.IsZero() || d.now().Before(p.Expires)) {
			s.AppPasswords++
		}
	}
	if account.TOTP == nil {
		return s, nil
	}
	codes, err := d.Records.RecoveryCodes(ctx, account.TOTP.ID)
	if err != nil {
		return Summary{}, fmt.Errorf("auth: reading the recovery codes of %s: %w", account.Name, err)
	}
	for _, c := range codes {
		if c.Used.IsZero() {
			s.RecoveryCodes++
		}
	}
	return s, nil
}

// ended tells whoever holds sessions.
func (d *Directory) ended(r Revocation) {
	if d.Ended != nil && !r.none() {
		d.Ended(r)
	}
}

func (d *Directory) now() time.Time {
	if d.Now == nil {
		return time.Now()
	}
	return d.Now()
}

func noSuchAccount(name string) error {
	return refuse(NoSuchAccount, fmt.Sprintf("no account %q here; the upstream may know one all the same. "+
		"To enrol it, run: imapwarden account enroll %s", name, name))
}

// Package memory keeps records and audit events for as long as the process
// lives: for trying things out, and for tests. Codes count again and grants are
// gone after a restart, so it is nothing to put in front of real mailboxes.
//
// A Store is safe for concurrent use; one mutex guards it all. Records grow with
// what administrators enrol and issue, and owners prove. Events, which strangers cause,
// are bounded: the newest 10,000 stay; bans are as many as package policy makes. Times
// are kept as microseconds in UTC, as the other stores do.
package memory

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/certs"
	"imapwarden/policy"
)

// A Store is ready for use once New has made it.
type Store struct {
	mu       sync.Mutex
	accounts map[string]auth.Account     // by name
	owners   map[string]string           // the account's name, by its authenticator's ID
	recovery map[string]codes            // by the authenticator's ID
	grants   map[string]auth.Grant       // by ID
	issued   map[string]auth.AppPassword // by ID
	marks    map[string]string
	bans     map[netip.Prefix]policy.Ban
	homes    map[place]time.Time   // when each was last used
	files    map[string]certs.File // by name
	leases   map[string]lease      // by name
	events   []audit.Event         // ascending IDs
	lastID   int64                 // of an event, also of one that is gone
	lastHash audit.Hash            // the same one's
}

// New returns an empty store.
func New() *Store {
	return &Store{
		accounts: make(map[string]auth.Account),
		owners:   make(map[string]string),
		recovery: make(map[string]codes),
		grants:   make(map[string]auth.Grant),
		issued:   make(map[string]auth.AppPassword),
		marks:    make(map[string]string),
		bans:     make(map[netip.Prefix]policy.Ban),
		homes:    make(map[place]time.Time),
		files:    make(map[string]certs.File),
		leases:   make(map[string]lease),
	}
}

// Close does nothing: the records go when the store itself does.
func (s *Store) Close() error { return nil }

// enter begins a step that nobody else sees half-done. Where it returns no
// error, the caller must unlock mu.
func (s *Store) enter(ctx context.Context, doing string) error {
	s.mu.Lock()
	if err := ctx.Err(); err != nil {
		s.mu.Unlock()
		return fmt.Errorf("memory: %s: %w", doing, err)
	}
	return nil
}

// Account returns the record of that name, or auth.ErrNoAccount.
func (s *Store) Account(ctx context.Context, name string) (auth.Account, error) {
	if err := s.enter(ctx, "reading an account"); err != nil {
		return auth.Account{}, err
	}
	defer s.mu.Unlock()
	a, ok := s.accounts[name]
	if !ok {
		return auth.Account{}, auth.ErrNoAccount
	}
	return cloneAccount(a), nil
}

// SignIn returns what a login needs to know of the account.
func (s *Store) SignIn(ctx context.Context, name string) (auth.SignIn, error) {
	if err := s.enter(ctx, "reading an account"); err != nil {
		return auth.SignIn{}, err
	}
	defer s.mu.Unlock()
	in := auth.SignIn{Grants: s.grantsOf(name)}
	if a, ok := s.accounts[name]; ok {
		in.Account = cloneAccount(a)
	}
	for _, p := range s.issued {
		in.Unsealed = in.Unsealed || p.Account == name && p.Revoked.IsZero() && (len(p.Sealed) == 0 || p.Stale)
	}
	return in, nil
}

// Accounts returns at most limit records whose names come after the given one,
// by name, octet by octet.
func (s *Store) Accounts(ctx context.Context, after string, limit int) ([]auth.Account, error) {
	if err := s.enter(ctx, "listing accounts"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var accounts []auth.Account
	for _, name := range slices.Sorted(maps.Keys(s.accounts)) {
		if len(accounts) >= limit {
			break
		}
		if name > after {
			accounts = append(accounts, cloneAccount(s.accounts[name]))
		}
	}
	return accounts, nil
}

// PutAccount creates the record or replaces it whole, its authenticator and that one's
// recovery codes included.
func (s *Store) PutAccount(ctx context.Context, a auth.Account, recovery ...[]byte) error {
	if err := s.enter(ctx, "writing an account"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if a.TOTP == nil && len(recovery) > 0 {
		return errors.New("memory: writing an account: recovery codes need an authenticator")
	}
	if a.TOTP != nil {
		if owner, ok := s.owners[a.TOTP.ID]; ok && owner != a.Name {
			return errors.New("memory: writing an account: its authenticator's ID is that of another account")
		}
	}
	s.dropAuthenticator(a.Name)
	a = cloneAccount(a)
	if a.TOTP != nil {
		s.owners[a.TOTP.ID] = a.Name
		s.recovery[a.TOTP.ID] = unused(recovery)
	}
	s.accounts[a.Name] = a
	return nil
}

// RemoveAccount removes the record, its grants, app passwords and homes, or says auth.ErrNoAccount.
func (s *Store) RemoveAccount(ctx context.Context, name string) error {
	if err := s.enter(ctx, "removing an account"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if _, ok := s.accounts[name]; !ok {
		return auth.ErrNoAccount
	}
	s.dropAuthenticator(name)
	delete(s.accounts, name)
	maps.DeleteFunc(s.grants, func(_ string, g auth.Grant) bool { return g.Account == name })
	maps.DeleteFunc(s.issued, func(_ string, p auth.AppPassword) bool { return p.Account == name })
	maps.DeleteFunc(s.homes, func(p place, _ time.Time) bool { return p.account == name })
	return nil
}

func (s *Store) dropAuthenticator(account string) {
	if t := s.accounts[account].TOTP; t != nil {
		delete(s.owners, t.ID)
		delete(s.recovery, t.ID)
	}
}

// SpendStep sets LastStep where it is older than step, and with it puts the grants.
func (s *Store) SpendStep(ctx context.Context, totp string, step int64, grants ...auth.Grant) (won bool, err error) {
	if err := s.enter(ctx, "spending a code"); err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	t := s.spendable(totp, step)
	if t == nil {
		return false, nil
	}
	t.LastStep = step
	s.putGrants(grants)
	return true, nil
}

// Confirm is SpendStep that also sets Confirmed.
func (s *Store) Confirm(ctx context.Context, totp string, step int64, at time.Time) (won bool, err error) {
	if err := s.enter(ctx, "confirming an authenticator"); err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	t := s.spendable(totp, step)
	if t == nil {
		return false, nil
	}
	t.LastStep, t.Confirmed = step, inMicros(at)
	return true, nil
}

// spendable returns the authenticator where the step wasn't used yet, else nil.
func (s *Store) spendable(totp string, step int64) *auth.TOTP {
	owner, ok := s.owners[totp]
	if !ok || s.accounts[owner].TOTP.LastStep >= step {
		return nil
	}
	return s.accounts[owner].TOTP
}

// Grants returns all grants of the account, oldest first.
func (s *Store) Grants(ctx context.Context, account string) ([]auth.Grant, error) {
	if err := s.enter(ctx, "reading grants"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	return s.grantsOf(account), nil
}

func (s *Store) grantsOf(account string) []auth.Grant {
	var grants []auth.Grant
	for _, g := range s.grants {
		if g.Account == account {
			grants = append(grants, cloneGrant(g))
		}
	}
	slices.SortFunc(grants, func(a, b auth.Grant) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return grants
}

// PutGrant creates the grant or replaces the one with its ID.
func (s *Store) PutGrant(ctx context.Context, g auth.Grant) error {
	if err := s.enter(ctx, "writing a grant"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.putGrants([]auth.Grant{g})
	return nil
}

func (s *Store) putGrants(grants []auth.Grant) {
	for _, g := range grants {
		s.grants[g.ID] = cloneGrant(g)
	}
}

// TouchGrants sets LastUsed of each grant named, where that is later.
func (s *Store) TouchGrants(ctx context.Context, lastUsed map[string]time.Time) error {
	if err := s.enter(ctx, "noting the use of grants"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for id, at := range lastUsed {
		if g, ok := s.grants[id]; ok && at.After(g.LastUsed) {
			g.LastUsed = inMicros(at)
			s.grants[id] = g
		}
	}
	return nil
}

// RemoveGrants removes the named grants of the account, or all where none is named, and
// returns the IDs of those that it removed.
func (s *Store) RemoveGrants(ctx context.Context, account string, ids ...string) (removed []string, err error) {
	if err := s.enter(ctx, "removing grants"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	for id, g := range s.grants {
		if g.Account == account && (len(ids) == 0 || slices.Contains(ids, id)) {
			delete(s.grants, id)
			removed = append(removed, id)
		}
	}
	return removed, nil
}

// PurgeGrants removes those that expired before the given time.
func (s *Store) PurgeGrants(ctx context.Context, before time.Time) error {
	if err := s.enter(ctx, "purging grants"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	before = inMicros(before)
	maps.DeleteFunc(s.grants, func(_ string, g auth.Grant) bool { return g.Expires.Before(before) })
	return nil
}

// Mark returns the value under name, or "" where there is none.
func (s *Store) Mark(ctx context.Context, name string) (string, error) {
	if err := s.enter(ctx, "reading a mark"); err != nil {
		return "", err
	}
	defer s.mu.Unlock()
	return s.marks[name], nil
}

// SetMark creates or replaces it.
func (s *Store) SetMark(ctx context.Context, name, value string) error {
	if err := s.enter(ctx, "writing a mark"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	s.marks[name] = value
	return nil
}

// TagKeys returns the KeyID of every grant, and of every app password that isn't revoked,
// each once.
func (s *Store) TagKeys(ctx context.Context) ([]string, error) {
	if err := s.enter(ctx, "reading which keys are in use"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	used := make(map[string]bool)
	for _, g := range s.grants {
		used[g.KeyID] = true
	}
	for _, p := range s.issued {
		if p.Revoked.IsZero() {
			used[p.KeyID] = true
		}
	}
	return slices.Collect(maps.Keys(used)), nil
}

// What goes in or comes out is cloned: callers may change what they hold.

func cloneAccount(a auth.Account) auth.Account {
	a.Created = inMicros(a.Created)
	if a.TOTP != nil {
		t := *a.TOTP
		t.Sealed = bytes.Clone(t.Sealed)
		t.Created, t.Confirmed = inMicros(t.Created), inMicros(t.Confirmed)
		a.TOTP = &t
	}
	return a
}

func cloneGrant(g auth.Grant) auth.Grant {
	g.Client, g.PasswordTag = bytes.Clone(g.Client), bytes.Clone(g.PasswordTag)
	g.Created, g.Expires, g.LastUsed = inMicros(g.Created), inMicros(g.Expires), inMicros(g.LastUsed)
	return g
}

func inMicros(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()).UTC() }

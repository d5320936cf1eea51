package memory

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"imapwarden/auth"
)

// AppPassword returns the one with that tag, or auth.ErrNoAppPassword.
func (s *Store) AppPassword(ctx context.Context, tag []byte) (auth.AppPassword, error) {
	if err := s.enter(ctx, "reading an app password"); err != nil {
		return auth.AppPassword{}, err
	}
	defer s.mu.Unlock()
	for _, p := range s.issued {
		if bytes.Equal(p.Tag, tag) {
			return cloneAppPassword(p), nil
		}
	}
	return auth.AppPassword{}, auth.ErrNoAppPassword
}

// AppPasswords returns all of the account, oldest first.
func (s *Store) AppPasswords(ctx context.Context, account string) ([]auth.AppPassword, error) {
	if err := s.enter(ctx, "reading app passwords"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var list []auth.AppPassword
	for _, p := range s.issued {
		if p.Account == account {
			list = append(list, cloneAppPassword(p))
		}
	}
	slices.SortFunc(list, func(a, b auth.AppPassword) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// AddAppPassword creates it, and the account's record where there is none, unless the
// account has most already.
func (s *Store) AddAppPassword(ctx context.Context, p auth.AppPassword, most int) (added bool, err error) {
	if slices.ContainsFunc(p.Networks, func(n netip.Prefix) bool { return !n.IsValid() }) {
		return false, errors.New("memory: adding an app password: one of its networks is none")
	}
	if err := s.enter(ctx, "adding an app password"); err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	p = cloneAppPassword(p)
	n := 0
	for _, other := range s.issued {
		if other.Account == p.Account && other.Revoked.IsZero() && (other.Expires.IsZero() || other.Expires.After(p.Created)) {
			n++
		}
	}
	if n >= most {
		return false, nil
	}
	for _, other := range s.issued {
		if other.ID == p.ID || bytes.Equal(other.Tag, p.Tag) {
			return false, errors.New("memory: adding an app password: its ID or tag is that of another")
		}
	}
	if _, ok := s.accounts[p.Account]; !ok {
		s.accounts[p.Account] = auth.Account{Name: p.Account, Created: p.Created}
	}
	s.issued[p.ID] = p
	return true, nil
}

// RevokeAppPassword sets Revoked and takes Public and Sealed away.
func (s *Store) RevokeAppPassword(ctx context.Context, account, id string, at time.Time) (known bool, err error) {
	if err := s.enter(ctx, "revoking an app password"); err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	p, ok := s.issued[id]
	if !ok || p.Account != account || !p.Revoked.IsZero() {
		return false, nil
	}
	p.Revoked, p.Public, p.Sealed = inMicros(at), nil, nil
	s.issued[id] = p
	return true, nil
}

// SealAppPasswords sets Sealed, by ID, and clears Stale; those that are revoked meanwhile
// stay as they are.
func (s *Store) SealAppPasswords(ctx context.Context, account string, sealed map[string][]byte) error {
	if err := s.enter(ctx, "sealing app passwords"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for id, b := range sealed {
		if p, ok := s.issued[id]; ok && p.Account == account && p.Revoked.IsZero() {
			p.Sealed, p.Stale = bytes.Clone(b), false
			s.issued[id] = p
		}
	}
	return nil
}

// StaleAppPassword sets Stale where Sealed still is what was tried.
func (s *Store) StaleAppPassword(ctx context.Context, id string, tried []byte) error {
	if err := s.enter(ctx, "noting a stale app password"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if p, ok := s.issued[id]; ok && bytes.Equal(p.Sealed, tried) {
		p.Stale = true
		s.issued[id] = p
	}
	return nil
}

// RetagAppPassword sets Tag, PublicTag and KeyID.
func (s *Store) RetagAppPassword(ctx context.Context, id string, tag, publicTag []byte, keyID string) error {
	if err := s.enter(ctx, "retagging an app password"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for _, other := range s.issued {
		if other.ID != id && bytes.Equal(other.Tag, tag) {
			return errors.New("memory: retagging an app password: its tag is that of another")
		}
	}
	if p, ok := s.issued[id]; ok {
		p.Tag, p.PublicTag, p.KeyID = bytes.Clone(tag), bytes.Clone(publicTag), keyID
		s.issued[id] = p
	}
	return nil
}

// UseAppPasswords sets LastUse of each app password named, where that is later.
func (s *Store) UseAppPasswords(ctx context.Context, uses map[string]auth.Use) error {
	if err := s.enter(ctx, "noting the use of app passwords"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for id, use := range uses {
		use.Time = inMicros(use.Time)
		if p, ok := s.issued[id]; ok && use.Time.After(p.LastUse.Time) {
			p.LastUse = use
			s.issued[id] = p
		}
	}
	return nil
}

// PurgeAppPasswords removes those that were revoked or expired before the given time.
func (s *Store) PurgeAppPasswords(ctx context.Context, before time.Time) error {
	if err := s.enter(ctx, "purging app passwords"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	before = inMicros(before)
	over := func(t time.Time) bool { return !t.IsZero() && t.Before(before) }
	maps.DeleteFunc(s.issued, func(_ string, p auth.AppPassword) bool { return over(p.Revoked) || over(p.Expires) })
	return nil
}

func cloneAppPassword(p auth.AppPassword) auth.AppPassword {
	p.Tag, p.Public, p.PublicTag, p.Sealed = bytes.Clone(p.Tag), bytes.Clone(p.Public), bytes.Clone(p.PublicTag), bytes.Clone(p.Sealed)
	p.Networks = slices.Clone(p.Networks)
	p.Created, p.Expires, p.Revoked = inMicros(p.Created), inMicros(p.Expires), inMicros(p.Revoked)
	p.LastUse.Time = inMicros(p.LastUse.Time)
	return p
}

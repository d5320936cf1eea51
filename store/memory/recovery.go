package memory

import (
	"bytes"
	"context"
	"time"

	"imapwarden/auth"
)

// codes are an authenticator's recovery codes: when each was used, by its tag.
type codes map[string]time.Time

func unused(tags [][]byte) codes {
	c := make(codes)
	for _, tag := range tags {
		c[string(tag)] = time.Time{}
	}
	return c
}

// RecoveryCodes returns those of the authenticator, used ones included.
func (s *Store) RecoveryCodes(ctx context.Context, totp string) ([]auth.RecoveryCode, error) {
	if err := s.enter(ctx, "reading recovery codes"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var list []auth.RecoveryCode
	for tag, used := range s.recovery[totp] {
		list = append(list, auth.RecoveryCode{Tag: []byte(tag), Used: used})
	}
	return list, nil
}

// SpendRecovery sets Used of an unused recovery code, and with it puts the grants.
func (s *Store) SpendRecovery(ctx context.Context, totp string, tag []byte, at time.Time, grants ...auth.Grant) (left int, won bool, err error) {
	if err := s.enter(ctx, "spending a recovery code"); err != nil {
		return 0, false, err
	}
	defer s.mu.Unlock()
	if used, ok := s.recovery[totp][string(tag)]; ok && used.IsZero() {
		s.recovery[totp][string(tag)] = inMicros(at)
		s.putGrants(grants)
		won = true
	}
	for _, used := range s.recovery[totp] {
		if used.IsZero() {
			left++
		}
	}
	return left, won, nil
}

// PutRecovery replaces the authenticator's recovery codes by unused ones.
func (s *Store) PutRecovery(ctx context.Context, totp string, tags [][]byte) (known bool, err error) {
	if err := s.enter(ctx, "replacing recovery codes"); err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	if _, known = s.owners[totp]; known {
		s.recovery[totp] = unused(tags)
	}
	return known, nil
}

// Reseal replaces what is sealed of the authenticator where it still is old.
func (s *Store) Reseal(ctx context.Context, totp string, old, sealed []byte) (won bool, err error) {
	if err := s.enter(ctx, "resealing an authenticator"); err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	owner, ok := s.owners[totp]
	if !ok || !bytes.Equal(s.accounts[owner].TOTP.Sealed, old) {
		return false, nil
	}
	s.accounts[owner].TOTP.Sealed = bytes.Clone(sealed)
	return true, nil
}

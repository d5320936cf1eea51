package memory

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"imapwarden/policy"
)

// A place is a home without the time.
type place struct {
	account     string
	appPassword bool
	site        netip.Prefix
}

// Homes returns at most limit homes, the latest Last first.
func (s *Store) Homes(ctx context.Context, limit int) ([]policy.Home, error) {
	if err := s.enter(ctx, "reading homes"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	homes := make([]policy.Home, 0, len(s.homes))
	for p, last := range s.homes {
		homes = append(homes, policy.Home{Account: p.account, AppPassword: p.appPassword, Site: p.site, Last: last})
	}
	slices.SortFunc(homes, func(a, b policy.Home) int { return b.Last.Compare(a.Last) })
	return homes[:min(max(limit, 0), len(homes))], nil
}

// PutHomes creates homes, or sets their Last where it is later; all of them, or none.
func (s *Store) PutHomes(ctx context.Context, homes ...policy.Home) error {
	for _, h := range homes {
		if !masked(h.Site) {
			return fmt.Errorf("memory: writing homes: a home of %q: %s is not a masked network of IPv4 or IPv6", h.Account, h.Site)
		}
	}
	if err := s.enter(ctx, "writing homes"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for _, h := range homes {
		p, at := place{h.Account, h.AppPassword, h.Site}, inMicros(h.Last)
		if last, ok := s.homes[p]; !ok || at.After(last) {
			s.homes[p] = at
		}
	}
	return nil
}

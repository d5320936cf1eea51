package memory

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"imapwarden/policy"
)

// Bans returns all bans, those that are over included until purged, by network.
func (s *Store) Bans(ctx context.Context) ([]policy.Ban, error) {
	if err := s.enter(ctx, "reading bans"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.bans), func(a, b policy.Ban) int { return a.Network.Compare(b.Network) }), nil
}

// PutBans creates bans, or replaces those of the same networks; all of them, or none.
func (s *Store) PutBans(ctx context.Context, bans ...policy.Ban) error {
	for _, b := range bans {
		if !masked(b.Network) {
			return fmt.Errorf("memory: writing bans: %s is not a masked network of IPv4 or IPv6", b.Network)
		}
	}
	if err := s.enter(ctx, "writing bans"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for _, b := range bans {
		b.Since, b.Until = inMicros(b.Since), inMicros(b.Until)
		s.bans[b.Network] = b
	}
	return nil
}

// RemoveBans removes those of the networks.
func (s *Store) RemoveBans(ctx context.Context, networks ...netip.Prefix) error {
	if err := s.enter(ctx, "removing bans"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for _, n := range networks {
		delete(s.bans, n)
	}
	return nil
}

// PurgeMemory removes the bans that ended and the homes that were last used before then.
func (s *Store) PurgeMemory(ctx context.Context, bans, homes time.Time) error {
	if err := s.enter(ctx, "purging bans and homes"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	bans, homes = inMicros(bans), inMicros(homes)
	maps.DeleteFunc(s.bans, func(_ netip.Prefix, b policy.Ban) bool { return b.Until.Before(bans) })
	maps.DeleteFunc(s.homes, func(_ place, last time.Time) bool { return last.Before(homes) })
	return nil
}

// masked is false for IPv4 as IPv6, too: a network that can be written in two ways would be two.
func masked(p netip.Prefix) bool {
	return p.IsValid() && p == p.Masked() && !p.Addr().Is4In6()
}

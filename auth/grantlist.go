package auth

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// A GrantSummary is what may be shown of a grant.
type GrantSummary struct {
	ID       string       `json:"id"`
	Account  string       `json:"account"`
	From     string       `json:"from"`    // FromNetwork or FromClient
	Network  netip.Prefix `json:"network"` // where the second factor was shown
	Created  time.Time    `json:"created"`
	Expires  time.Time    `json:"expires"` // the absolute end
	LastUsed time.Time    `json:"last_used"`
}

// Grants returns the account's grants that live, as far as the store knows, oldest first.
func (d *Directory) Grants(ctx context.Context, name string) ([]GrantSummary, error) {
	name, err := d.Names.Canonical(name)
	if err != nil {
		return nil, err
	}
	grants, err := d.Records.Grants(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("auth: reading the grants of %s: %w", name, err)
	}
	var list []GrantSummary
	for _, g := range grants {
		if g.forLogin() || !d.Grant.lives(g, g.LastUsed, d.now()) {
			continue
		}
		s := GrantSummary{g.ID, g.Account, FromNetwork, g.Network, g.Created, g.Expires, g.LastUsed}
		if len(g.Client) > 0 {
			s.From = FromClient
		}
		list = append(list, s)
	}
	return list, nil
}

// RevokeGrants ends the named grants of the account, or all where none is named, with the
// sessions under them, and returns how many there were.
func (d *Directory) RevokeGrants(ctx context.Context, name string, ids ...string) (n int, err error) {
	err = d.change(ctx, "grant.revoke", name, func(name string) error {
		removed, err := d.Records.RemoveGrants(ctx, name, ids...)
		if err != nil {
			return fmt.Errorf("auth: removing grants of %s: %w", name, err)
		}
		d.ended(Revocation{Account: name, Grants: removed, AllGrants: len(ids) == 0})
		n = len(removed)
		for _, id := range ids {
			if !slices.Contains(removed, id) {
				return refuse(NotFound, fmt.Sprintf("%s has no grant %q; those that there are lists: imapwarden grant list %s", name, id, name))
			}
		}
		return nil
	})
	return n, err
}

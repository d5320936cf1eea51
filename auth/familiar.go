package auth

import (
	"context"
	"fmt"
	"net/netip"
)

// Familiar says whether the account has or had a grant from the source's network, as far
// back as ended grants are kept.
func (a *Authenticator) Familiar(ctx context.Context, account string, source netip.Addr) (bool, error) {
	grants, err := a.Records.Grants(ctx, account)
	if err != nil {
		return false, fmt.Errorf("auth: reading the grants of %s: %w", account, err)
	}
	return familiar(grants, source), nil
}

// FamiliarToAppPasswords says whether one of the account's app passwords was last used from the
// source's network.
func (a *Authenticator) FamiliarToAppPasswords(ctx context.Context, account string, source netip.Addr) (bool, error) {
	list, err := a.Records.AppPasswords(ctx, account)
	if err != nil {
		return false, fmt.Errorf("auth: reading the app passwords of %s: %w", account, err)
	}
	for _, p := range list {
		if p.Revoked.IsZero() && a.usedFrom(p, source) {
			return true, nil
		}
	}
	return false, nil
}

// Introduced says what program a session is that the verdict let in, where it said so only
// after its login.
func (a *Authenticator) Introduced(v Verdict, source netip.Addr, program string) {
	if v.AppPassword != "" {
		a.uses.add(v.AppPassword, Use{Time: a.now(), Source: source, Program: program})
	}
}

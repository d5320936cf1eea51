package auth

import (
	"context"
	"crypto/hmac"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"
)

const (
	maxGrants   = 20                 // of one account
	keepEnded   = 7 * 24 * time.Hour // ended ones still tell a stale code from a guess
	grantIDSize = 16
)

// FromNetwork is the value of GrantSettings.From that gives grants to networks.
const FromNetwork = "network"

// GrantSettings say from where and for how long the password alone is enough
// after a code.
type GrantSettings struct {
	From       string        // FromNetwork; anything else: every login needs a code
	IPv4Prefix int           // bits of an address that make its network; outside 1 to 32: the address alone
	IPv6Prefix int           // the same, outside 1 to 128
	Absolute   time.Duration // from the code to the end
	Idle       time.Duration // from the end of the last session under it
}

func (s GrantSettings) off() bool { return s.From != FromNetwork }

// network returns what an address shares with its neighbours. Without grants
// that is nothing: a login is the same only from the same address.
func (s GrantSettings) network(source netip.Addr) netip.Prefix {
	source = source.Unmap().WithZone("")
	bits := s.IPv6Prefix
	if source.Is4() {
		bits = s.IPv4Prefix
	}
	if s.off() || bits < 1 || bits > source.BitLen() {
		bits = source.BitLen()
	}
	return netip.PrefixFrom(source, bits).Masked()
}

// lives says whether a grant that was last used then has not ended.
func (s GrantSettings) lives(g Grant, lastUsed, now time.Time) bool {
	return now.Before(g.Expires) && (s.off() || now.Before(lastUsed.Add(s.Idle)))
}

// byGrant is the proof of those who passed a second factor a while ago.
type byGrant struct{ id string }

func (p byGrant) accepted(ctx context.Context, c *Claim) (Verdict, error) {
	// It may have ended or been taken away while the upstream thought.
	_, ok, err := c.auth.living(ctx, c.attempt.Account, p.id)
	if err != nil {
		return Verdict{}, err
	}
	if !ok {
		return c.without(Expired), nil
	}
	return Verdict{Outcome: Accepted, Factor: FactorGrant, GrantID: p.id}, nil
}

// denied ends the grant: we know its password again and the upstream doesn't, so it was
// changed there.
func (p byGrant) denied(ctx context.Context, c *Claim) error {
	if err := c.auth.Records.RemoveGrants(ctx, c.attempt.Account, p.id); err != nil {
		return fmt.Errorf("auth: ending a grant of %s: %w", c.attempt.Account, err)
	}
	return nil
}

// newGrant returns what a login by code gives. Its ID follows from account, network
// and password: there is one grant for the three, and a newer code renews it.
//
// With grants off the parallel connections of a mail program must work all the same, so
// the grant is then for sameLogin and for this very secret, code included: the
// spent code still is what lets in, and only from the address where it was spent.
func (a *Authenticator) newGrant(at Attempt, password Secret) Grant {
	now := a.now()
	life, tag := a.Grant.Absolute, a.passwordTag(at.Account, password)
	if a.Grant.off() {
		life, tag = sameLogin, a.loginTag(at.Account, at.Secret)
	}
	network := a.Grant.network(at.Source)
	id := a.Keys.Tag("grant-id", []byte(at.Account), []byte(network.String()), tag)[:grantIDSize]
	return Grant{
		ID: hex.EncodeToString(id), Account: at.Account, Network: network, PasswordTag: tag,
		Created: now, Expires: now.Add(life), LastUsed: now,
	}
}

// passwordTag is by what a grant knows its password again, with or without a code behind it.
func (a *Authenticator) passwordTag(account string, password Secret) []byte {
	return a.Keys.Tag("grant-password", []byte(account), password)
}

// loginTag is by what a grant knows a whole login again, with another purpose, so that
// neither kind of grant is ever taken for the other.
func (a *Authenticator) loginTag(account string, secret Secret) []byte {
	return a.Keys.Tag("grant-login", []byte(account), secret)
}

// compare looks at the grants in the light of an attempt. front is what stands
// before the code, nil where there is none.
func (a *Authenticator) compare(grants []Grant, at Attempt, front Secret) []knownGrant {
	if len(grants) == 0 {
		return nil
	}
	var frontTag, sameTag []byte
	wholeTag := a.passwordTag(at.Account, at.Secret)
	if front != nil {
		frontTag, sameTag = a.passwordTag(at.Account, front), a.loginTag(at.Account, at.Secret)
	}
	network := a.Grant.network(at.Source)
	known := make([]knownGrant, len(grants))
	for i, g := range grants {
		k := knownGrant{id: g.ID, recent: a.recent(g)}
		switch {
		case hmac.Equal(g.PasswordTag, wholeTag):
			k.match = matchWhole
		case front != nil && hmac.Equal(g.PasswordTag, frontTag):
			k.match = matchFront
		case front != nil && hmac.Equal(g.PasswordTag, sameTag):
			k.match = matchSame
		}
		k.live = g.Network == network && a.lives(g) && (k.match == matchSame) == a.Grant.off()
		known[i] = k
	}
	return known
}

// living returns the grant of that ID if there still is one that lives.
func (a *Authenticator) living(ctx context.Context, account, id string) (Grant, bool, error) {
	grants, err := a.Records.Grants(ctx, account)
	if err != nil {
		return Grant{}, false, fmt.Errorf("auth: reading the grants of %s: %w", account, err)
	}
	for _, g := range grants {
		if g.ID == id {
			return g, a.lives(g), nil
		}
	}
	return Grant{}, false, nil
}

// lives adds to the store's word what we know of sessions since it was written.
func (a *Authenticator) lives(g Grant) bool {
	now := a.now()
	return a.Grant.lives(g, a.stays.lastUsed(g, now), now)
}

func (a *Authenticator) recent(g Grant) bool { return a.now().Sub(g.Created) < sameLogin }

// familiar says whether one of the grants, ended ones included, was given where the
// attempt comes from.
func familiar(grants []Grant, source netip.Addr) bool {
	for _, g := range grants {
		if g.Network.Contains(source.Unmap().WithZone("")) {
			return true
		}
	}
	return false
}

// surplus returns the IDs of the oldest grants that must go, so that one with the
// given ID has room.
func surplus(grants []Grant, id string) []string {
	var others []string
	for _, g := range grants { // oldest first
		if g.ID != id {
			others = append(others, g.ID)
		}
	}
	return others[:max(0, len(others)-(maxGrants-1))]
}

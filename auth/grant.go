package auth

import (
	"context"
	"crypto/hmac"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

const (
	maxGrants       = 20                 // of one account, for networks
	maxClientGrants = 40                 // of one account, for TLS clients
	keepEnded       = 7 * 24 * time.Hour // ended ones still tell a stale code from a guess
	grantIDSize     = 16
)

// What a code opens, the values of GrantSettings.From.
const (
	FromNetwork = "network"    // the network where it was shown
	FromClient  = "tls-client" // the TLS client that brought it, wherever that goes
	FromBoth    = "both"       // either will do
)

// GrantSettings say from where and for how long the password alone is enough
// after a code.
type GrantSettings struct {
	From       string        // one of the above; anything else: every login needs a code
	IPv4Prefix int           // bits of an address that make its network; outside 1 to 32: the address alone
	IPv6Prefix int           // the same, outside 1 to 128
	Absolute   time.Duration // of a network: from the code to the end
	Idle       time.Duration // of a network: from the end of the last session under it

	ClientAbsolute, ClientIdle time.Duration // the same of a TLS client
}

func (s GrantSettings) forNetworks() bool { return s.From == FromNetwork || s.From == FromBoth }

// ForClients says whether it matters which TLS client it is.
func (s GrantSettings) ForClients() bool { return s.From == FromClient || s.From == FromBoth }

// forLogins says whether a login gets a grant of its own, see newGrants.
func (s GrantSettings) forLogins() bool { return s.From != FromNetwork }

// forLogin says whether it is one of those, for a moment and of nobody's interest.
func (g Grant) forLogin() bool { return len(g.Client) == 0 && g.Expires.Sub(g.Created) <= sameLogin }

// only is the network of one address.
func only(source netip.Addr) netip.Prefix {
	source = source.Unmap().WithZone("")
	return netip.PrefixFrom(source, source.BitLen())
}

// network returns what an address shares with its neighbours. Without grants for networks
// that is nothing: a login is the same only from the same address.
func (s GrantSettings) network(source netip.Addr) netip.Prefix {
	source = source.Unmap().WithZone("")
	bits := s.IPv6Prefix
	if source.Is4() {
		bits = s.IPv4Prefix
	}
	if !s.forNetworks() || bits < 1 || bits > source.BitLen() {
		bits = source.BitLen()
	}
	return netip.PrefixFrom(source, bits).Masked()
}

// lives says whether a grant that was last used then has not ended.
func (s GrantSettings) lives(g Grant, lastUsed, now time.Time) bool {
	switch {
	case !now.Before(g.Expires):
		return false
	case len(g.Client) > 0:
		return now.Before(lastUsed.Add(s.ClientIdle))
	case s.forNetworks() && !g.forLogin():
		return now.Before(lastUsed.Add(s.Idle))
	}
	return true
}

// byGrant is the proof of those who passed a second factor a while ago.
type byGrant struct {
	ids  []string
	same bool // just now, with the same secret on another connection
}

func (p byGrant) accepted(ctx context.Context, c *Claim) (Verdict, error) {
	// They may have ended or been taken away while the upstream thought.
	living, err := c.auth.stillLiving(ctx, c.attempt.Account, p.ids)
	if err != nil {
		return Verdict{}, err
	}
	switch {
	case len(living) == 0:
		return c.without(Expired), nil
	case p.same:
		return c.shared(ctx, living)
	}
	return underGrants(living), nil
}

func (byGrant) denied(ctx context.Context, c *Claim) (Reason, error) {
	return WrongPassword, c.changed(ctx)
}

func underGrants(grants []Grant) Verdict {
	v := Verdict{Outcome: Accepted, Factor: FactorGrant}
	for _, g := range grants {
		v.Grants = append(v.Grants, g.ID)
	}
	return v
}

// shared lets in another connection of a login whose code has just been spent, as the grant of
// that login proves. Each of a mail program's connections is a TLS client of its own, as the
// handshake sees it, and any of them may be the one that is resumed later: so each gets
// its grant, with the same end as if it had been the first.
func (c *Claim) shared(ctx context.Context, living []Grant) (Verdict, error) {
	a, v := c.auth, underGrants(living)
	for _, g := range a.newGrants(c.attempt, c.password, living[0].Created) {
		if len(g.Client) == 0 || slices.Contains(v.Grants, g.ID) {
			continue
		}
		if err := c.makeRoom(ctx, []Grant{g}); err != nil {
			return Verdict{}, err
		}
		if err := a.Records.PutGrant(ctx, g); err != nil {
			return Verdict{}, fmt.Errorf("auth: writing a grant of %s: %w", c.attempt.Account, err)
		}
		v.Grants = append(v.Grants, g.ID)
		// The others may have been revoked before it was there to be revoked with them.
		switch _, ok, err := a.living(ctx, c.attempt.Account, living[0].ID); {
		case err != nil:
			return Verdict{}, err
		case !ok:
			if _, err := a.Records.RemoveGrants(ctx, c.attempt.Account, g.ID); err != nil {
				return Verdict{}, fmt.Errorf("auth: removing a grant of %s: %w", c.attempt.Account, err)
			}
			return c.without(Expired), nil
		}
	}
	return v, nil
}

// newGrants returns what a login by code gives. Their IDs follow from account, network or
// TLS client, and password: there is one grant for the three, and a newer code renews it.
//
// A mail program's parallel connections must work where the network gets no grant, too, and where
// each TLS client gets its own. So the login itself gets one, for sameLogin, and for this very
// secret, code included, from this very address: the spent code still is what lets in. It
// comes first, and is the same for all of them.
func (a *Authenticator) newGrants(at Attempt, password Secret, created time.Time) []Grant {
	tag, keyID := a.passwordTag(at.Account, password)
	grant := func(client []byte, network netip.Prefix, where string, tag []byte, life time.Duration) Grant {
		id := a.Keys.TagWith(keyID, "grant-id", []byte(at.Account), []byte(where), tag)[:grantIDSize]
		return Grant{
			ID: hex.EncodeToString(id), Account: at.Account, Network: network, Client: client, PasswordTag: tag,
			KeyID: keyID, Created: created, Expires: created.Add(life), LastUsed: a.now(),
		}
	}
	var grants []Grant
	if a.Grant.forLogins() {
		address := only(at.Source)
		login := a.Keys.TagWith(keyID, loginPurpose, []byte(at.Account), at.Secret)
		grants = append(grants, grant(nil, address, address.String(), login, sameLogin))
	}
	network := a.Grant.network(at.Source)
	if a.Grant.forNetworks() {
		grants = append(grants, grant(nil, network, network.String(), tag, at.lasting(a.Grant.Absolute)))
	}
	if a.Grant.ForClients() && at.Client != nil {
		client := a.Keys.TagWith(keyID, clientPurpose, []byte(at.Account), at.Client)
		grants = append(grants, grant(client, network, "client "+string(client), tag, at.lasting(a.Grant.ClientAbsolute)))
	}
	return grants
}

// lasting is how long a grant lasts that would last so long at quiet times.
func (at Attempt) lasting(life time.Duration) time.Duration {
	if at.Brief {
		return life / 4
	}
	return life
}

// The purposes of tags. Whole logins have one of their own, so that neither kind of grant is
// ever taken for the other.
const (
	passwordPurpose = "grant-password" // a password, with or without a code behind it
	loginPurpose    = "grant-login"    // a password and a code
	clientPurpose   = "grant-client"   // the id of a TLS client
)

// passwordTag is by what a grant knows its password again.
func (a *Authenticator) passwordTag(account string, password Secret) (tag []byte, keyID string) {
	return a.Keys.Tag(passwordPurpose, []byte(account), password)
}

// An attemptTags is what grants of one key can know of an attempt.
type attemptTags struct{ whole, front, same, client []byte }

func (a *Authenticator) attemptTags(keyID string, at Attempt, front Secret) (t attemptTags) {
	account := []byte(at.Account)
	t.whole = a.Keys.TagWith(keyID, passwordPurpose, account, at.Secret)
	if front != nil {
		t.front = a.Keys.TagWith(keyID, passwordPurpose, account, front)
		t.same = a.Keys.TagWith(keyID, loginPurpose, account, at.Secret)
	}
	if at.Client != nil {
		t.client = a.Keys.TagWith(keyID, clientPurpose, account, at.Client)
	}
	return t
}

// compare looks at the grants in the light of an attempt. front is what stands
// before the code, nil where there is none.
func (a *Authenticator) compare(grants []Grant, at Attempt, front Secret) []knownGrant {
	network := a.Grant.network(at.Source)
	tags := make(map[string]attemptTags, 1) // by key: mostly there is one
	known := make([]knownGrant, len(grants))
	for i, g := range grants {
		t, ok := tags[g.KeyID]
		if !ok {
			t = a.attemptTags(g.KeyID, at, front)
			tags[g.KeyID] = t
		}
		k := knownGrant{id: g.ID, recent: a.recent(g)}
		switch {
		case matches(g.PasswordTag, t.whole):
			k.match = matchWhole
		case matches(g.PasswordTag, t.front):
			k.match = matchFront
		case matches(g.PasswordTag, t.same):
			k.match = matchSame
		}
		switch {
		case len(g.Client) > 0:
			k.live = a.Grant.ForClients() && matches(g.Client, t.client)
		case k.match == matchSame:
			k.live = a.Grant.forLogins() && g.Network == only(at.Source)
		default:
			k.live = a.Grant.forNetworks() && g.Network == network
		}
		k.live = k.live && a.lives(g)
		known[i] = k
	}
	return known
}

// matches says whether there is such a tag and it is the one.
func matches(stored, seen []byte) bool { return len(seen) > 0 && hmac.Equal(stored, seen) }

// stillLiving returns the grants with these IDs that live.
func (a *Authenticator) stillLiving(ctx context.Context, account string, ids []string) (living []Grant, err error) {
	grants, err := a.Records.Grants(ctx, account)
	if err != nil {
		return nil, fmt.Errorf("auth: reading the grants of %s: %w", account, err)
	}
	for _, g := range grants {
		if slices.Contains(ids, g.ID) && a.lives(g) {
			living = append(living, g)
		}
	}
	return living, nil
}

// living returns the grant of that ID if there still is one that lives.
func (a *Authenticator) living(ctx context.Context, account, id string) (Grant, bool, error) {
	living, err := a.stillLiving(ctx, account, []string{id})
	if err != nil || len(living) == 0 {
		return Grant{}, false, err
	}
	return living[0], true, nil
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

// makeRoom removes the oldest grants, where there are too many of a kind with those to come.
func (c *Claim) makeRoom(ctx context.Context, coming []Grant) error {
	now := c.auth.now()
	old := append(surplus(c.grants, coming, false, maxGrants, now), surplus(c.grants, coming, true, maxClientGrants, now)...)
	if len(old) == 0 {
		return nil
	}
	if _, err := c.auth.Records.RemoveGrants(ctx, c.attempt.Account, old...); err != nil {
		return fmt.Errorf("auth: removing the oldest grants of %s: %w", c.attempt.Account, err)
	}
	return nil
}

// surplus returns the IDs of those grants of one kind that must go, so that those to come have
// room: first what has ended, then the oldest.
func surplus(grants, coming []Grant, forClients bool, most int, now time.Time) []string {
	isKind := func(g Grant) bool { return len(g.Client) > 0 == forClients }
	var ended, others []string
	for _, g := range grants { // oldest first
		switch {
		case !isKind(g), slices.ContainsFunc(coming, func(c Grant) bool { return c.ID == g.ID }):
		case now.Before(g.Expires):
			others = append(others, g.ID)
		default:
			ended = append(ended, g.ID)
		}
	}
	for _, g := range coming {
		if isKind(g) {
			most--
		}
	}
	others = append(ended, others...)
	return others[:max(0, len(others)-most)]
}

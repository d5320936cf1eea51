package auth

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"
)

const (
	maxAppPasswords = 25                  // of one account, that are neither revoked nor expired
	keepRevoked     = 90 * 24 * time.Hour // so long a forgotten device isn't taken for a guess

	appPasswordPurpose = "app-password"
)

// The shape: six groups of five, such as "hm4kq-7xw2e-…": 130 random bits, which nobody can
// try out even against a copy of the store with its key, and 20 check bits.
const (
	appGroup     = 5
	appGroups    = 6
	appLength    = appGroup * appGroups
	appSeparated = appLength + appGroups - 1
	appCheck     = 4
	appRandom    = appLength - appCheck
)

// appDigits are an app password without its check digits, in lower case.
type appDigits [appRandom]byte

// Format prints stars.
func (appDigits) Format(f fmt.State, _ rune) { io.WriteString(f, stars) }

// newAppDigits draws again where a single wrong digit would make another app password (one in
// 1,300), and where nearly all are letters: so a slip of the finger is told as such.
func newAppDigits() appDigits {
	for {
		var digits appDigits
		copy(digits[:], randomText(appRandom))
		if digits.mixed() && !digits.hasNeighbour() {
			return digits
		}
	}
}

// mixed says whether it has two decimal digits, of which one may be mistyped: without any, a
// secret is taken for words.
func (d appDigits) mixed() bool {
	n := 0
	for _, c := range d {
		if c <= '9' {
			n++
		}
	}
	return n >= 2
}

// hasNeighbour says whether another app password differs in one random digit alone. One that
// differs in a check digit alone has the wrong ones.
func (d appDigits) hasNeighbour() bool {
	check := d.check()
	for i, right := range d {
		for _, c := range []byte(textDigits) {
			if d[i] = c; c != right && d.check() == check {
				return true
			}
		}
		d[i] = right
	}
	return false
}

// check returns the check digits. They tell a typo from a guess, and other people's passwords
// from ours; nothing is protected by them.
func (d appDigits) check() (check [appCheck]byte) {
	const name = "imapwarden app password check"
	var text [len(name) + appRandom]byte // of a fixed size: this stays on the stack
	copy(text[copy(text[:], name):], d[:])
	sum := sha256.Sum256(text[:])
	for i := range check {
		check[i] = textDigits[sum[i]%32]
	}
	return check
}

// text returns the app password as its owner reads it.
func (d appDigits) text() string {
	check := d.check()
	whole := append(d[:], check[:]...)
	return string(bytes.Join(slices.Collect(slices.Chunk(whole, appGroup)), []byte("-")))
}

// An appShape is what a secret looks like.
type appShape int

const (
	noAppPassword appShape = iota
	mistypedAppPassword
	wholeAppPassword
)

// parseAppPassword reads an app password in upper or lower case, with dashes, spaces or nothing
// between its groups, and perhaps spaces around it, as keyboards add them. With other signs
// in it, or something before or behind, such as a code, it is a mistyped one: whatever
// has its digits in a row must not go to the upstream.
func parseAppPassword(secret []byte) (appDigits, appShape) {
	secret = bytes.Trim(secret, " ")
	if digits, shape := parseGroups(secret); shape != noAppPassword || !hidesAppPassword(secret) {
		return digits, shape
	}
	return appDigits{}, mistypedAppPassword
}

// maxSought bounds the work for who sends a long secret: credentials have at most 512 octets.
const maxSought = 512

// hidesAppPassword says whether the letters and digits of a secret have an app password among them.
func hidesAppPassword(secret []byte) bool {
	if len(secret) < appLength {
		return false
	}
	var kept [maxSought]byte
	n := 0
	for _, c := range secret[:min(len(secret), maxSought)] {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			kept[n] = c
			n++
		}
	}
	for i := 0; i+appLength <= n; i++ {
		window := kept[i : i+appLength]
		if bytes.ContainsFunc(window, func(r rune) bool { return !isTextDigit(byte(r)) }) {
			continue
		}
		if appDigits(window[:appRandom]).check() == [appCheck]byte(window[appRandom:]) {
			return true
		}
	}
	return false
}

// parseGroups reads no more than the groups. Without separators, only the right check digits
// make them an app password: people have passwords of thirty letters.
func parseGroups(secret []byte) (appDigits, appShape) {
	separated := len(secret) == appSeparated
	if !separated && len(secret) != appLength {
		return appDigits{}, noAppPassword
	}
	var whole [appLength]byte
	n, typo := 0, false
	for i, c := range secret {
		if separated && i%(appGroup+1) == appGroup {
			if c != secret[appGroup] || c != '-' && c != ' ' {
				return appDigits{}, noAppPassword
			}
			continue
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9') {
			return appDigits{}, noAppPassword
		}
		typo = typo || !isTextDigit(c) // such as 0 for o: we have neither
		whole[n] = c
		n++
	}
	digits := appDigits(whole[:appRandom])
	switch {
	case !typo && digits.check() == [appCheck]byte(whole[appRandom:]):
		return digits, wholeAppPassword
	case separated && bytes.ContainsAny(whole[:], "0123456789"): // six words of five letters are somebody's password
		return appDigits{}, mistypedAppPassword
	}
	return appDigits{}, noAppPassword
}

// LooksLikeAppPassword says whether a secret is an app password by its shape, also a mistyped
// one. Such a secret is never sent to the upstream. It is cheap enough to ask of everything
// that a client sends, user names included: people type passwords in the wrong field.
func LooksLikeAppPassword(secret []byte) bool {
	_, shape := parseAppPassword(secret)
	return shape != noAppPassword
}

// appKeys are what follows from an app password, and from which it doesn't follow.
type appKeys struct {
	lookup  Secret    // what its tag is made of
	private *[32]byte // opens its vault
}

// Format prints stars: fmt looks into private fields without asking their types.
func (appKeys) Format(f fmt.State, _ rune) { io.WriteString(f, stars) }

// keys derives them (RFC 5869). The digits are random enough to need no slow hash.
func (d appDigits) keys() appKeys {
	derive := func(info string) []byte {
		derived, err := hkdf.Key(sha256.New, d[:], nil, info, 32)
		if err != nil {
			panic("auth: HKDF: " + err.Error()) // only for more output than 255 hashes
		}
		return derived
	}
	return appKeys{
		lookup:  derive("imapwarden app password lookup"),
		private: (*[32]byte)(derive("imapwarden app password vault")),
	}
}

// public is the X25519 key that belongs to the private one (RFC 7748; whoever uses that clamps it).
func (k appKeys) public() []byte {
	private, err := ecdh.X25519().NewPrivateKey(k.private[:])
	if err != nil {
		panic("auth: X25519: " + err.Error()) // only for a key of another size
	}
	return private.PublicKey().Bytes()
}

func (k appKeys) wipe() {
	k.lookup.Wipe()
	clear(k.private[:])
}

// appPasswordTag is by what the store finds an app password. The account is in it: so nobody
// who can only write to the store can give an app password of theirs to another account.
func (k *Keys) appPasswordTag(account string, lookup Secret) (tag []byte, keyID string) {
	return k.Tag(appPasswordPurpose, []byte(account), lookup)
}

// byAppPassword is the proof of those who bring an app password that is good.
type byAppPassword struct {
	found AppPassword
	tag   []byte // under the current key
	keyID string // which is that

	publicTag []byte // under the same
}

// examineAppPassword decides about an app password without the upstream, but for one that is
// good, and for which the upstream has to say whether it still takes what the vault holds.
func (a *Authenticator) examineAppPassword(ctx context.Context, at Attempt) (*Claim, error) {
	digits, shape := parseAppPassword(at.Secret)
	if shape != wholeAppPassword {
		return a.decided(at, refused(MistypedPassword)), nil
	}
	keys := digits.keys()
	defer keys.wipe()
	clear(digits[:])
	p, err := a.findAppPassword(ctx, at.Account, keys.lookup)
	if errors.Is(err, ErrNoAppPassword) || err == nil && p.Account != at.Account {
		return a.decided(at, refused(UnknownAppPassword)), nil
	}
	if err != nil {
		return nil, fmt.Errorf("auth: looking up an app password of %s: %w", at.Account, err)
	}

	c := &Claim{auth: a, attempt: at, app: p.ID, familiar: a.usedFrom(p, at.Source)}
	reason := p.refuses(at.Source, a.now(), at.Master)
	if reason == SealedOutdated && a.retries.due(p.ID, a.now()) {
		reason = ""
	}
	if reason == "" && !at.Master {
		if c.opened, reason, err = a.openVault(ctx, p, keys); err != nil {
			return nil, err
		}
	}
	if reason != "" {
		c.settle(refused(reason))
		return c, nil
	}
	proof := byAppPassword{found: p}
	proof.tag, proof.keyID = a.Keys.appPasswordTag(at.Account, keys.lookup)
	proof.publicTag = a.Keys.publicTag(proof.keyID, p)
	c.password, c.master, c.proof = c.opened, at.Master, proof
	return c, nil
}

// findAppPassword looks under the tag of each key, beginning with the current one, and under that
// once more: another connection may have tagged it anew between the two.
func (a *Authenticator) findAppPassword(ctx context.Context, account string, lookup Secret) (p AppPassword, err error) {
	ids := a.Keys.IDs()
	if len(ids) > 1 {
		ids = append(ids, ids[0])
	}
	for _, keyID := range ids {
		tag := a.Keys.TagWith(keyID, appPasswordPurpose, []byte(account), lookup)
		if tag == nil { // the key has just been dropped: nothing needs it any more
			continue
		}
		if p, err = a.Records.AppPassword(ctx, tag); !errors.Is(err, ErrNoAppPassword) {
			return p, err
		}
	}
	return AppPassword{}, ErrNoAppPassword
}

// refuses says why an app password doesn't count now and from there; "": it does. Without a
// master user it is of use only with the upstream password in its vault, and one that
// the upstream has refused isn't shown to it again: its own limits would take that for guessing.
func (p AppPassword) refuses(source netip.Addr, now time.Time, master bool) Reason {
	source = source.Unmap().WithZone("")
	switch {
	case !p.Revoked.IsZero():
		return RevokedAppPassword
	case p.expired(now):
		return ExpiredAppPassword
	case len(p.Networks) > 0 && !slices.ContainsFunc(p.Networks, func(n netip.Prefix) bool { return n.Contains(source) }):
		return ForeignNetwork
	case !master && len(p.Sealed) == 0:
		return NotSealed
	case !master && p.Stale:
		return SealedOutdated
	}
	return ""
}

func (p AppPassword) expired(now time.Time) bool {
	return !p.Expires.IsZero() && !now.Before(p.Expires)
}

// usedFrom says whether the app password was last used in the source's network.
func (a *Authenticator) usedFrom(p AppPassword, source netip.Addr) bool {
	last := a.uses.last(p).Source
	return last.IsValid() && a.Grant.network(last) == a.Grant.network(source)
}

func (p byAppPassword) accepted(ctx context.Context, c *Claim) (Verdict, error) {
	a := c.auth
	// It may have been revoked or have expired while the upstream thought.
	now, err := a.foundAgain(ctx, p.found)
	switch {
	case errors.Is(err, ErrNoAppPassword):
		return refused(RevokedAppPassword), nil // with its account
	case err != nil:
		return Verdict{}, fmt.Errorf("auth: reading an app password of %s: %w", c.attempt.Account, err)
	}
	// The vault doesn't matter any more: the upstream has taken what was in it.
	if reason := now.refuses(c.attempt.Source, a.now(), true); reason != "" {
		return refused(reason), nil
	}
	if now.KeyID != p.keyID && a.Keys.vouch(now) {
		if err := a.Records.RetagAppPassword(ctx, p.found.ID, p.tag, p.publicTag, p.keyID); err != nil {
			a.log().Warn("app password not tagged with the current key, trying again at its next use",
				zap.String("account", c.attempt.Account), zap.String("app_password", p.found.ID), zap.Error(err))
		}
	}
	if now.Stale && !c.master { // the upstream has changed its mind
		if err := a.Records.SealAppPasswords(ctx, p.found.Account, map[string][]byte{p.found.ID: p.found.Sealed}); err != nil {
			a.log().Warn("app password still marked as outdated, trying again at its next use",
				zap.String("account", c.attempt.Account), zap.String("app_password", p.found.ID), zap.Error(err))
		}
	}
	a.uses.add(p.found.ID, Use{Time: a.now(), Source: c.attempt.Source, Program: c.attempt.Program})
	return Verdict{
		Outcome: Accepted, Factor: FactorAppPassword, AppPassword: p.found.ID, ReadOnly: now.ReadOnly,
	}, nil
}

// foundAgain reads an app password once more, also where another connection has given it a new
// tag since.
func (a *Authenticator) foundAgain(ctx context.Context, p AppPassword) (AppPassword, error) {
	now, err := a.Records.AppPassword(ctx, p.Tag)
	if !errors.Is(err, ErrNoAppPassword) {
		return now, err
	}
	all, err := a.Records.AppPasswords(ctx, p.Account)
	if err != nil {
		return AppPassword{}, err
	}
	if i := slices.IndexFunc(all, func(now AppPassword) bool { return now.ID == p.ID }); i >= 0 {
		return all[i], nil
	}
	return AppPassword{}, ErrNoAppPassword
}

// denied marks what the vault held, so that no device goes on asking the upstream with it.
func (p byAppPassword) denied(ctx context.Context, c *Claim) (Reason, error) {
	if c.master {
		return WrongPassword, nil
	}
	c.auth.retries.due(p.found.ID, c.auth.now()) // not again for a while
	return SealedOutdated, c.auth.stale(ctx, p.found)
}

// stale marks what the vault holds for the app password as useless: the next good login of its
// account replaces it.
func (a *Authenticator) stale(ctx context.Context, p AppPassword) error {
	if err := a.Records.StaleAppPassword(ctx, p.ID, p.Sealed); err != nil {
		return fmt.Errorf("auth: marking the sealed password of %s as outdated: %w", p.Account, err)
	}
	return nil
}

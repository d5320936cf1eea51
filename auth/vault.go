package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/crypto/nacl/box"
)

// The vault is what each AppPassword holds in Sealed: the account's upstream password, sealed
// to a public key whose private one follows from the app password alone. Neither the store nor
// the key file nor both open it.

// vaultBlock is what the size of a sealed password is a multiple of, so that it
// tells next to nothing of the password's.
const vaultBlock = 64

// seal seals the account's upstream password for the app password.
func (p AppPassword) seal(password Secret) ([]byte, error) {
	switch {
	case len(p.Public) != 32:
		return nil, fmt.Errorf("auth: sealing for app password %s: its public key is damaged: revoke it and issue another", p.ID)
	case len(password) == 0 || len(password) > math.MaxUint16:
		return nil, fmt.Errorf("auth: sealing for app password %s: the upstream password has %d octets", p.ID, len(password))
	}
	owner := p.owner()
	size := 2 + len(password)
	size += (vaultBlock - size%vaultBlock) % vaultBlock
	plaintext := make([]byte, 0, len(owner)+size)
	defer clear(plaintext[:cap(plaintext)])
	plaintext = append(plaintext, owner[:]...)
	plaintext = binary.BigEndian.AppendUint16(plaintext, uint16(len(password)))
	plaintext = append(plaintext, password...)
	sealed, err := box.SealAnonymous(nil, plaintext[:cap(plaintext)], (*[32]byte)(p.Public), nil)
	if err != nil {
		return nil, fmt.Errorf("auth: sealing for app password %s: %w", p.ID, err)
	}
	return sealed, nil
}

// publicTag vouches for the app password's public key: nobody who can only write to the store
// can have passwords sealed to a key of theirs. It is nil where the key file lacks the key.
func (k *Keys) publicTag(keyID string, p AppPassword) []byte {
	return k.TagWith(keyID, "app-password-public", []byte(p.Account), []byte(p.ID), p.Public)
}

// vouch says whether the app password's public key is the one that we put there.
func (k *Keys) vouch(p AppPassword) bool { return matches(p.PublicTag, k.publicTag(p.KeyID, p)) }

var errVault = errors.New("what is sealed doesn't open: it was damaged, or made for another app password")

// open returns what seal sealed. An empty password is none: some upstreams take it for a
// request to come in without one.
func (k appKeys) open(p AppPassword) (Secret, error) {
	if len(p.Public) != 32 {
		return nil, errVault
	}
	// The public key as stored: deriving it costs as much as all else here. A forged one opens nothing.
	plaintext, ok := box.OpenAnonymous(nil, p.Sealed, (*[32]byte)(p.Public), k.private)
	if !ok {
		return nil, errVault
	}
	defer clear(plaintext)
	owner := p.owner()
	rest, ok := bytes.CutPrefix(plaintext, owner[:])
	if !ok || len(rest) < 2 {
		return nil, errVault
	}
	size := int(binary.BigEndian.Uint16(rest))
	if rest = rest[2:]; size == 0 || size > len(rest) {
		return nil, errVault
	}
	return slices.Clone(rest[:size]), nil
}

// owner stands in front of a sealed password: whoever can write to the store can't move one to
// another app password, or that to another account.
func (p AppPassword) owner() [sha256.Size]byte {
	return sha256.Sum256(label("vault", p.Account, p.ID))
}

// openVault opens what the app password's vault holds. What doesn't open was changed in the
// store; that is no failure, for the next good login mends it.
func (a *Authenticator) openVault(ctx context.Context, p AppPassword, keys appKeys) (Secret, Reason, error) {
	password, err := keys.open(p)
	if err == nil {
		return password, "", nil
	}
	a.log().Warn("upstream password of an app password not opened, waiting for the next login with the main password",
		zap.String("account", p.Account), zap.String("app_password", p.ID), zap.Error(err))
	return nil, NotSealed, a.stale(ctx, p)
}

// sealAnew puts the account's upstream password into the vault of its app passwords: of all,
// or of those that have none or a useless one. It never fails a login.
func (a *Authenticator) sealAnew(ctx context.Context, account string, password Secret, all bool) {
	if err := a.sealVaults(ctx, account, password, all); err != nil {
		a.log().Warn("upstream password not sealed for app passwords, trying again at the next login with the main password",
			zap.String("account", account), zap.Error(err))
	}
}

func (a *Authenticator) sealVaults(ctx context.Context, account string, password Secret, all bool) error {
	list, err := a.Records.AppPasswords(ctx, account)
	if err != nil {
		return fmt.Errorf("auth: reading the app passwords of %s: %w", account, err)
	}
	now := a.now()
	list = slices.DeleteFunc(list, func(p AppPassword) bool { return !p.Revoked.IsZero() || p.expired(now) })
	sealed := make(map[string][]byte)
	var damaged error
	for _, p := range list {
		if !all && p.ready() {
			continue
		}
		made, err := a.sealFor(p, password)
		if err != nil { // the others' devices are to go on
			damaged = errors.Join(damaged, err)
			continue
		}
		sealed[p.ID] = made
	}
	if len(sealed) > 0 {
		if err := a.Records.SealAppPasswords(ctx, account, sealed); err != nil {
			return errors.Join(damaged, fmt.Errorf("auth: writing sealed passwords of %s: %w", account, err))
		}
	}
	if all && damaged == nil {
		a.sealed.add(account, password)
	}
	return damaged
}

func (a *Authenticator) sealFor(p AppPassword, password Secret) ([]byte, error) {
	if !a.Keys.vouch(p) {
		return nil, fmt.Errorf("auth: sealing for app password %s: its public key was changed in the store: "+
			"find out who can write there, revoke it and issue another", p.ID)
	}
	return p.seal(password)
}

// ready says whether the vault holds what the upstream takes, as far as we know.
func (p AppPassword) ready() bool { return len(p.Sealed) > 0 && !p.Stale }

const maxSealedLately = 10_000 // accounts

// sealedLately remembers for which accounts all vaults got the password, so that a login by
// code doesn't seal it once more. It holds no more than a hash, under a key that ends with
// the process. Where another machine or an older copy of the store has put another password
// there since, the upstream's next no to it mends that. The zero value is ready for use.
type sealedLately struct {
	mu        sync.Mutex
	key       Secret
	byAccount map[string][16]byte
}

// holds says whether the vaults hold the password, by our own doing.
func (s *sealedLately) holds(account string, password Secret) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	last, ok := s.byAccount[account]
	if !ok {
		return false
	}
	now := s.hash(account, password)
	return subtle.ConstantTimeCompare(last[:], now[:]) == 1
}

// add notes that they do.
func (s *sealedLately) add(account string, password Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.key == nil {
		s.key = random(keySize)
	}
	if s.byAccount == nil || len(s.byAccount) >= maxSealedLately {
		s.byAccount = make(map[string][16]byte)
	}
	s.byAccount[account] = s.hash(account, password)
}

func (s *sealedLately) hash(account string, password Secret) [16]byte {
	return [16]byte(key{secret: s.key}.tag("sealed lately", []byte(account), password))
}

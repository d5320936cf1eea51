package policy

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	countersIdle = 25 * time.Hour      // the longest bucket is full again after a day
	familiarIdle = 90 * 24 * time.Hour // an account that signs in less often is new everywhere
)

// A Gate decides what may happen and remembers what did. Its zero value is ready,
// with the default limits. Set Limits before the first call.
type Gate struct {
	Limits Limits

	once      sync.Once
	limits    Limits // with defaults
	key       [32]byte
	seed      maphash.Seed
	addresses *table[netip.Prefix, *addressEntry] // by site
	accounts  *table[string, *accountEntry]
	familiar  *table[familiarKey, *familiarEntry]
	slots     slots
}

func (g *Gate) start() {
	g.once.Do(func() {
		g.limits = g.Limits.withDefaults()
		rand.Read(g.key[:]) // never fails
		g.seed = maphash.MakeSeed()
		g.addresses = newTable[netip.Prefix](maxCached, maxHeld, countersIdle,
			func() *addressEntry { return newAddressEntry(g.limits) })
		g.accounts = newTable[string](maxCached, maxHeld, countersIdle,
			func() *accountEntry { return new(accountEntry) })
		g.familiar = newTable[familiarKey](maxCached, maxHeld, familiarIdle,
			func() *familiarEntry { return new(familiarEntry) })
		g.slots.sites = make(map[netip.Prefix]int)
		g.slots.networks = make(map[netip.Prefix]int)
		g.slots.accounts = make(map[string]int)
		g.slots.pairs = make(map[pair]int)
	})
}

// Begin decides whether an attempt may be judged now. Until its trial ends it counts
// as if it failed: forty attempts at once can't pass a limit of ten. The trial
// is nil when the attempt is refused.
func (g *Gate) Begin(at Attempt) (Decision, *Trial) {
	d, t, _ := g.begin(at)
	return d, t
}

// Await is Begin for callers that can wait: where only attempts in flight stand in
// the way, as when an office's mail programs come back all at once, it waits
// until one of them ends. It returns Begin's refusal when ctx ends first.
func (g *Gate) Await(ctx context.Context, at Attempt) (Decision, *Trial) {
	for {
		d, t, settled := g.begin(at)
		if settled == nil {
			return d, t
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return d, t
		}
	}
}

// begin gathers the facts, judges, and counts an allowed attempt as in flight.
// Where only attempts in flight refuse it, settled is closed when one of them ends.
func (g *Gate) begin(at Attempt) (d Decision, t *Trial, settled <-chan struct{}) {
	g.start()
	now := time.Now()
	t = g.trial(at)
	f := facts{observe: g.limits.Observe, appPassword: at.AppPassword}

	// Each step judges what is known so far, and counts under the same lock, or
	// else two attempts could take the last place. No two locks are held at once.
	g.familiar.with(t.key, now, func(e *familiarEntry) {
		if h := e.home(t.source.Network()); h != nil {
			door := h.open(t.source.Site())
			t.door = door.site
			f.familiar, f.home = true, door.facts(now, g.limits.AddressPerDay)
			if d = judge(f); f.strangersAtHome(t.door, d) {
				f.familiar, f.home = false, homeFacts{}
				return
			}
			settled = door.flying.enter(d)
		}
	})
	if t.familiar = f.familiar; t.familiar {
		if !d.Allowed {
			t = nil
		}
		return d, t, settled
	}
	f.account.left = 1 // the account's turn comes below
	g.addresses.with(t.source.Site(), now, func(e *addressEntry) {
		f.address = e.facts(now)
		d = judge(f)
		settled = e.flying.enter(d)
	})
	if !d.Allowed {
		return d, nil, settled
	}
	if at.AppPassword {
		return d, t, nil
	}
	g.accounts.with(t.key.account, now, func(e *accountEntry) {
		f.account = e.facts(now, g.limits.AccountFailures)
		d = judge(f)
		settled = e.flying.enter(d)
	})
	if !d.Allowed {
		t.leaveAddress(now, false)
		return d, nil, settled
	}
	return d, t, nil
}

// strangersAtHome says whether neighbours have used up what all sites of a home share that the
// account never signed in from: whoever comes from one then is as good as from elsewhere.
func (f facts) strangersAtHome(door netip.Prefix, d Decision) bool {
	return !door.IsValid() && (!d.Allowed && !d.busy || d.Observed != "")
}

// A Trial is an attempt that is being judged. It ends with one of its methods;
// the first call counts, and more do nothing.
type Trial struct {
	gate     *Gate
	source   Source
	key      familiarKey
	familiar bool         // when it began
	door     netip.Prefix // which one of the home, then
	ended    atomic.Bool
}

func (g *Gate) trial(at Attempt) *Trial {
	account := strings.Clone(at.Account) // it may be part of a long line
	return &Trial{gate: g, source: SourceOf(at.Addr), key: familiarKey{account, at.AppPassword}}
}

// Failed says that the attempt was wrong. It is charged to the address, and to the
// account where the network is new to it and the secret is no app password, unless
// the same secret, known by its [Gate.Digest], was wrong for that account from
// that site before: it returns that.
func (t *Trial) Failed(digest [8]byte) (again bool) {
	if t.ended.Swap(true) {
		return false
	}
	now := time.Now()
	sight := t.gate.sight(digest, t.source.Site())
	switch {
	case t.familiar:
		t.gate.familiar.with(t.key, now, func(e *familiarEntry) {
			again = e.seen.again(sight)
			if door := t.doorIn(e); door != nil {
				door.flying.leave()
				if !again && !t.key.appPassword { // 130 bits can't be guessed: that is no danger to the owner
					door.charge(now)
				}
			}
		})
	case t.key.appPassword:
		t.gate.addresses.with(t.source.Site(), now, func(e *addressEntry) { again = e.seen.again(sight) })
	default:
		t.gate.accounts.with(t.key.account, now, func(e *accountEntry) {
			e.flying.leave()
			if again = e.seen.again(sight); !again {
				e.charge(now, t.gate.limits)
			}
		})
	}
	t.leaveAddress(now, !again)
	return again
}

// Repeats says whether the same secret, known by its [Gate.Digest], was wrong for the account
// from that site before, and is still remembered.
func (g *Gate) Repeats(at Attempt, digest [8]byte) (repeats bool) {
	g.start()
	t := g.trial(at)
	sight := g.sight(digest, t.source.Site())
	g.familiar.look(t.key, func(e *familiarEntry) { repeats = slices.Contains(e.seen, sight) })
	if !repeats {
		g.accounts.look(t.key.account, func(e *accountEntry) { repeats = slices.Contains(e.seen, sight) })
	}
	return repeats
}

// Succeeded says that the account has signed in, second factor included: its
// network is familiar from now on, for this kind of secret. A success clears no
// failure, or else an owner's mail program would hand a guesser new tries all day.
func (t *Trial) Succeeded() {
	if t.ended.Swap(true) {
		return
	}
	now := time.Now()
	t.leaveAccount(now)
	t.leaveAddress(now, false)
	t.acquaint(now)
}

// Acquaint makes the address's network familiar for the account and the kind of
// secret, as a success does, for callers that know of one from before this Gate began.
func (g *Gate) Acquaint(at Attempt) {
	g.start()
	g.trial(at).acquaint(time.Now())
}

func (t *Trial) acquaint(now time.Time) {
	t.gate.familiar.with(t.key, now, func(e *familiarEntry) { e.add(t.source) })
}

// Release says that nobody could tell, as when the upstream is away. It charges
// nothing. It may be deferred: after another method, and on nil, it does nothing.
func (t *Trial) Release() {
	if t == nil || t.ended.Swap(true) {
		return
	}
	now := time.Now()
	t.leaveAccount(now)
	t.leaveAddress(now, false)
}

// doorIn returns the door by which the attempt came, nil where its home is forgotten.
func (t *Trial) doorIn(e *familiarEntry) *door {
	if h := e.home(t.source.Network()); h != nil {
		return h.door(t.door)
	}
	return nil
}

func (t *Trial) leaveAccount(now time.Time) {
	switch {
	case t.familiar:
		t.gate.familiar.with(t.key, now, func(e *familiarEntry) {
			if door := t.doorIn(e); door != nil {
				door.flying.leave()
			}
		})
	case !t.key.appPassword: // which wasn't counted there
		t.gate.accounts.with(t.key.account, now, func(e *accountEntry) { e.flying.leave() })
	}
}

func (t *Trial) leaveAddress(now time.Time, failed bool) {
	if t.familiar && !failed {
		return // it wasn't counted there
	}
	t.gate.addresses.with(t.source.Site(), now, func(e *addressEntry) {
		if !t.familiar {
			e.flying.leave()
		}
		if failed {
			e.charge(now)
		}
	})
}

// Knows says whether the address's network is familiar for the account and the kind
// of secret.
func (g *Gate) Knows(at Attempt) (known bool) {
	g.start()
	key := familiarKey{at.Account, at.AppPassword}
	g.familiar.with(key, time.Now(), func(e *familiarEntry) { known = e.home(SourceOf(at.Addr).Network()) != nil })
	return known
}

// Digest is the name under which a wrong secret is remembered: keyed with a random
// key that lives in this Gate only, and different for each account.
func (g *Gate) Digest(account string, secret []byte) (digest [8]byte) {
	g.start()
	h := hmac.New(sha256.New, g.key[:])
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(account)))
	h.Write(length[:])
	io.WriteString(h, account)
	h.Write(secret)
	copy(digest[:], h.Sum(nil))
	return digest
}

// sight is a digest at a site, small enough to keep ten of for each account.
func (g *Gate) sight(digest [8]byte, site netip.Prefix) uint64 {
	return maphash.Comparable(g.seed, struct {
		digest [8]byte
		site   netip.Prefix
	}{digest, site})
}

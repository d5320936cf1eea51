package policy

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"time"
)

const (
	hourAccounts = time.Hour
	dayAccounts  = 24 * time.Hour
	sprayedFor   = 24 * time.Hour // after the last attempt with a password that was sprayed
	maxTrying    = 32             // remembered for one password; no limit is higher
	maxRight     = 64             // accounts of which we remember that it is right
)

// A passwordEntry knows for which accounts one password was wrong lately, and for which it was
// right. It is found by a keyed hash, and nothing in it says what the password is.
type passwordEntry struct {
	wrong   []trying // the newest last
	right   []owner
	sprayed uint32 // the newest attempt since it is known to be sprayed, in seconds since 1970; 0: it isn't
}

type trying struct {
	account uint32 // a hash
	at      uint32 // in seconds since 1970, the newest time
}

// An owner is an account whose password it is.
type owner struct {
	account string
	at      uint32
}

// passwordFacts is what tells that a password is being sprayed.
type passwordFacts struct {
	hour, day int // accounts for which it was wrong
}

func (e *passwordEntry) facts(now time.Time) (f passwordFacts) {
	for _, one := range e.wrong {
		age := since(one.at, now)
		if age < hourAccounts {
			f.hour++
		}
		if age < dayAccounts {
			f.day++
		}
	}
	return f
}

// judgePassword says whether so many accounts don't come by the same wrong password by themselves.
func judgePassword(f passwordFacts, l *Limits) bool {
	return f.hour >= min(l.PasswordPerHour, maxTrying) || f.day >= min(l.PasswordPerDay, maxTrying)
}

// isSprayed says whether every attempt with it needs a fresh code.
func (e *passwordEntry) isSprayed(now time.Time) bool {
	return e.sprayed != 0 && since(e.sprayed, now) < sprayedFor
}

// noteWrong remembers an account for which it was wrong. It says whether it is known only now that
// the password is being sprayed.
func (e *passwordEntry) noteWrong(account uint32, now time.Time, l *Limits) (began bool) {
	e.wrong = slices.DeleteFunc(e.wrong, func(one trying) bool {
		return one.account == account || since(one.at, now) >= dayAccounts
	})
	if len(e.wrong) == maxTrying {
		e.wrong = slices.Delete(e.wrong, 0, 1)
	}
	e.wrong = append(e.wrong, trying{account, secondsOf(now)})
	was := e.isSprayed(now)
	is := was || judgePassword(e.facts(now), l)
	if is {
		e.sprayed = secondsOf(now)
	}
	return is && !was
}

// noteRight remembers an account whose password it is, and says whether it is new.
func (e *passwordEntry) noteRight(account string, now time.Time) (first bool) {
	e.right = slices.DeleteFunc(e.right, func(one owner) bool { return since(one.at, now) >= dayAccounts })
	known := e.isRightFor(account)
	if !known && len(e.right) < maxRight {
		e.right = append(e.right, owner{account, secondsOf(now)})
	}
	return !known
}

func (e *passwordEntry) isRightFor(account string) bool {
	return slices.ContainsFunc(e.right, func(one owner) bool { return one.account == account })
}

func (e *passwordEntry) keep(now time.Time) (keeping, uint32) {
	last := e.sprayed
	for _, one := range e.wrong {
		last = max(last, one.at)
	}
	for _, one := range e.right {
		last = max(last, one.at)
	}
	switch {
	case e.isSprayed(now):
		return held, last
	case since(last, now) >= dayAccounts:
		return forgotten, 0
	}
	return cached, last
}

// A dayKey is what secrets are hashed with in memory, so that they can be compared and not read.
type dayKey struct {
	key [32]byte
	day int32
}

// dayKeys are those of today and of the day before: what was remembered yesterday is
// known again today, and nothing is longer.
type dayKeys struct{ today, yesterday dayKey }

// secretKeys gives the keys of the day, and makes today's when it is new. Those of tomorrow are good
// too, for attempts that began before midnight; where they are farther ahead, the clock was wrong.
type secretKeys struct{ current atomic.Pointer[dayKeys] }

func (s *secretKeys) at(now time.Time) *dayKeys {
	for {
		keys := s.current.Load()
		if keys != nil && (keys.today.day == dayOf(now) || keys.today.day == dayOf(now)+1) {
			return keys
		}
		next := &dayKeys{today: dayKey{day: dayOf(now)}}
		rand.Read(next.today.key[:]) // never fails
		if keys != nil && next.today.day-keys.today.day == 1 {
			next.yesterday = keys.today
		} else {
			rand.Read(next.yesterday.key[:])
		}
		s.current.CompareAndSwap(keys, next)
	}
}

// digest hashes a secret, and the account where that is to make it another: the first 8 octets of
// SHA-256 over key, length of the account (64 bits) and both. That is no HMAC, and needs to be none:
// of a hash cut so short nothing can be computed on.
func (k *dayKey) digest(account string, secret []byte) uint64 {
	var room [1024]byte
	b := append(room[:0], k.key[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(len(account)))
	b = append(b, account...)
	b = append(b, secret...)
	sum := sha256.Sum256(b)
	clear(b)
	return binary.BigEndian.Uint64(sum[:])
}

// passwordKey is the table's key of a password, by the day's key.
func (k *dayKey) passwordKey(password []byte) uint64 { return k.digest("", password) }

// sprayed says whether the password is being sprayed.
func (g *Gate) sprayed(password []byte, now time.Time) (is bool) {
	keys := g.keys.at(now)
	for _, k := range []*dayKey{&keys.today, &keys.yesterday} {
		g.passwords.look(k.passwordKey(password), func(e *passwordEntry, _ *flying) { is = is || e.isSprayed(now) })
	}
	return is
}

// withPassword calls do with what is known of the password: what was remembered yesterday goes
// over to today's key.
func (g *Gate) withPassword(password []byte, now time.Time, do func(*passwordEntry)) {
	keys := g.keys.at(now)
	var old passwordEntry
	g.passwords.look(keys.yesterday.passwordKey(password), func(e *passwordEntry, _ *flying) {
		old = passwordEntry{slices.Clone(e.wrong), slices.Clone(e.right), e.sprayed}
	})
	g.passwords.with(keys.today.passwordKey(password), now, func(e *passwordEntry, _ *flying) {
		if len(e.wrong) == 0 && len(e.right) == 0 {
			*e = old
		}
		do(e)
	})
}

// noteWrongPassword remembers that a password was wrong for the account, or that nobody asked whether
// it is. Where that tells that it is being sprayed, it raises the alarm, also for those
// whose password it is.
func (g *Gate) noteWrongPassword(password []byte, account string, now time.Time) (alerts []Alert) {
	if len(password) == 0 {
		return nil
	}
	hash := uint32(g.accountKey(account))
	g.withPassword(password, now, func(e *passwordEntry) {
		// An owner who lacks a code only is no sprayer.
		if e.isRightFor(account) || !e.noteWrong(hash, now, &g.limits) {
			return
		}
		alerts = append(alerts, Alert{Signal: PasswordSprayed, Detail: "one wrong password is tried on many accounts: until it ends for a day, every sign-in with it needs a fresh code"})
		for _, one := range e.right {
			alerts = append(alerts, Alert{Signal: PasswordSprayed, Account: one.account, Right: true, Detail: "the password that is tried on many accounts is right for this one: have it changed"})
		}
	})
	return alerts
}

// noteRightPassword remembers that a password is the account's, and raises the alarm where it is
// being sprayed. It says whether that is new today.
func (g *Gate) noteRightPassword(password []byte, account string, now time.Time) (first bool, alerts []Alert) {
	if len(password) == 0 {
		return false, nil
	}
	g.withPassword(password, now, func(e *passwordEntry) {
		if first = e.noteRight(account, now); e.isSprayed(now) {
			alerts = append(alerts, Alert{Signal: PasswordSprayed, Account: account, Right: true, Detail: "a password that is tried on many accounts is right for this one: have it changed"})
		}
	})
	return first, alerts
}

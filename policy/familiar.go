package policy

import (
	"net/netip"
	"slices"
	"time"
)

const (
	maxFamiliar = 20 // networks remembered for an account
	homeDay     = 24 * time.Hour
)

// A familiarKey is an account with one kind of secret. What app passwords teach us is
// apart from what passwords do: or else the thief of a phone would guess the main
// password with the budget of its owner, or use up that of the phone.
type familiarKey struct {
	account     string
	appPassword bool
}

// A familiarEntry is what an account's own sign-ins taught us. Only they create
// one, so no flood of invented names can push out those of real accounts.
type familiarEntry struct {
	homes []home // the newest last
	seen  seen   // wrong secrets from these networks; strangers can't push them out
}

// A home is a network where the account has signed in. Attempts on the account from
// there have a budget of their own: what others guess, from anywhere or from behind
// the same address, doesn't use it up.
type home struct {
	network  netip.Prefix
	failures int       // since
	since    time.Time // when the first of them was
	flying   flying
}

// homeFacts is what a decision needs to know of an account at one of its homes.
type homeFacts struct {
	left   int           // failures left, before those of attempts in flight
	flying int           // attempts in flight
	refill time.Duration // until the day is over
}

func (h *home) facts(now time.Time, limit int) homeFacts {
	if now.Sub(h.since) >= homeDay {
		return homeFacts{left: limit, flying: h.flying.count}
	}
	return homeFacts{left: limit - h.failures, flying: h.flying.count, refill: h.since.Add(homeDay).Sub(now)}
}

func judgeHome(f homeFacts) Decision {
	switch {
	case f.left < 1:
		return refuse(AddressLimit, f.refill)
	case f.flying >= f.left:
		return refuseBusy(AddressLimit)
	}
	return Decision{Allowed: true}
}

func (h *home) charge(now time.Time) {
	if now.Sub(h.since) >= homeDay {
		h.failures, h.since = 0, now
	}
	h.failures++
}

// home returns the entry's home at the network; nil where the account never signed in there.
func (e *familiarEntry) home(network netip.Prefix) *home {
	for i := range e.homes {
		if e.homes[i].network == network {
			return &e.homes[i]
		}
	}
	return nil
}

// add remembers a network where the account has just signed in. One with attempts in
// flight isn't the one to go.
func (e *familiarEntry) add(network netip.Prefix) {
	h := home{network: network}
	if i := slices.IndexFunc(e.homes, func(h home) bool { return h.network == network }); i >= 0 {
		h = e.homes[i]
		e.homes = slices.Delete(e.homes, i, i+1)
	} else if len(e.homes) >= maxFamiliar {
		if i := slices.IndexFunc(e.homes, func(h home) bool { return h.flying.count == 0 }); i >= 0 {
			e.homes = slices.Delete(e.homes, i, i+1)
		}
	}
	e.homes = append(e.homes, h)
}

func (e *familiarEntry) keep(time.Time) keeping {
	switch {
	case len(e.homes) == 0:
		return forgotten
	case slices.ContainsFunc(e.homes, func(h home) bool { return h.flying.count > 0 }):
		return pinned
	}
	return cached
}

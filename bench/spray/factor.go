package main

import (
	"net/netip"
	"time"
)

// How long grants last: mfa.grant's defaults, with from = "both".
const (
	grantAbsolute  = 12 * time.Hour
	grantIdle      = time.Hour
	clientAbsolute = 30 * day
	clientIdle     = 7 * day

	day = 24 * time.Hour
)

// factors is a small model of the second factor: the grants that were given, to networks
// and to TLS clients. The generator has one, of a world in which nothing is limited, and the product's
// adapter another, of what really happened.
type factors struct {
	networks map[atNetwork]given
	clients  map[atClient]given
}

type atNetwork struct {
	account int32
	network netip.Prefix
}

type atClient struct{ account, device int32 }

// given is one grant.
type given struct {
	secret  Secret
	at, end time.Duration // the code, and the end
	used    time.Duration // the end of the last session under it
}

func newFactors() *factors {
	return &factors{networks: make(map[atNetwork]given), clients: make(map[atClient]given)}
}

func grantNetwork(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits) // the world makes valid addresses only
	return p
}

func (g given) lives(l *Login, idle time.Duration) bool {
	return g.secret == l.Secret && l.At >= g.at && l.At < g.end && l.At < g.used+idle
}

// grants says whether a grant lets the login in, its password being right.
func (f *factors) grants(l *Login) bool {
	return f.networks[atNetwork{l.Account, grantNetwork(l.Addr)}].lives(l, grantIdle) ||
		f.clients[atClient{l.Account, l.Device}].lives(l, clientIdle)
}

// enter notes a login that was let in: one with a fresh code is given grants, others keep
// theirs alive.
func (f *factors) enter(l *Login) {
	if l.AppPassword {
		return
	}
	n, c := atNetwork{l.Account, grantNetwork(l.Addr)}, atClient{l.Account, l.Device}
	if l.Code == FreshCode {
		f.networks[n] = f.networks[n].renew(l, grantAbsolute)
		if l.Device > 0 {
			f.clients[c] = f.clients[c].renew(l, clientAbsolute)
		}
		return
	}
	if g := f.networks[n]; g.lives(l, grantIdle) {
		g.used = max(g.used, l.At+l.Session)
		f.networks[n] = g
	}
	if g := f.clients[c]; g.lives(l, clientIdle) {
		g.used = max(g.used, l.At+l.Session)
		f.clients[c] = g
	}
}

// renew starts a grant, or makes it last longer. It counts from the first of a login's
// connections, so that the others are under it.
func (g given) renew(l *Login, absolute time.Duration) given {
	at := l.At
	if g.secret == l.Secret && g.end > at {
		at = g.at
	}
	return given{secret: l.Secret, at: at, end: l.At + absolute, used: max(g.used, l.At+l.Session)}
}

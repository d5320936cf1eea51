package main

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// A Login is one presented set of credentials, and what the world knows of it.
type Login struct {
	At      time.Duration // since the measured day began; negative: the history
	Session time.Duration // how long it lasts where it is let in
	Addr    netip.Addr
	Account int32 // an index of World.Accounts; negative: a name that nobody has
	Device  int32 // the TLS client, which may have a grant of its own; 0: none
	Secret  Secret
	Digits  uint32 // the six digits behind the password, from 1,000,000; 0: none
	Code    Code
	From    int8 // 0: honest; otherwise one more than the index of the attack
	Why     Circumstance

	AppPassword bool
	Right       bool // honest, and let in where nobody attacks and nothing is limited
	Familiar    bool // the account has signed in from the network before
}

// A Secret stands for a password's text, or an app password's.
type Secret uint32

// The families of secrets: two logins bring the same text where their numbers are the same.
const (
	commonPasswords        = 1000 // 1 to 1,000: the list that everybody knows, the commonest first
	owned           Secret = 1 << 24
	mistyped        Secret = 2 << 28 // never right
	guessed         Secret = 3 << 28 // never right, and never the same twice
	leaked          Secret = 4 << 28 // right elsewhere
	appPassword     Secret = 5 << 28 // and a device
	revokedApp      Secret = 6 << 28
)

const versions = 4 // of an account's password in a run

// Code is what a login brings behind its password.
type Code uint8

// The kinds of code.
const (
	NoCode Code = iota
	FreshCode
	StaleCode // which was right once
	WrongCode
)

// Circumstance is why an honest login was made.
type Circumstance uint8

// The circumstances.
const (
	Daily Circumstance = iota
	Roaming
	AtWebmail
	Travelling
	Typed     // by a person, with a code
	Retyped   // after mistyping
	TypedBad  // mistyped
	LacksCode // the second factor has ended, or was forgotten
	OldSecret // a device that isn't up to date
)

var circumstances = [...]string{"daily", "roaming", "webmail", "travelling", "typed", "typed again", "mistyped", "second factor ended", "old secret"}

func (c Circumstance) String() string { return circumstances[c] }

// text appends what a client would send. Codes are part of it, as the proxy sees it.
func (l *Login) text(to []byte, withCode bool) []byte {
	if to = l.password(to); withCode && l.Digits > 0 {
		to = append(to, digits(l.Digits)...)
	}
	return to
}

// password is the secret without the code.
func (l *Login) password(to []byte) []byte {
	return binary.BigEndian.AppendUint32(to, uint32(l.Secret))
}

func digits(n uint32) []byte {
	var d [6]byte
	for i := len(d) - 1; i >= 0; i-- {
		d[i], n = '0'+byte(n%10), n/10
	}
	return d[:]
}

// network is the neighbourhood that an account may be familiar with.
func network(a netip.Addr) netip.Prefix {
	bits := 48
	if a.Is4() {
		bits = 24
	}
	p, _ := a.Prefix(bits) // the world makes valid addresses only
	return p
}

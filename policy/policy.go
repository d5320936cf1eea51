// Package policy answers one question: may this happen now? It knows addresses,
// accounts, counts and the clock. It knows nothing of IMAP, of passwords being
// right or wrong, or of what a refusal says to the client.
//
// A decision is a function from plain values ([judge] and the functions that it
// calls, one file for each signal), so a table can test it and an operator can
// be shown it ([Gate.Explain]). What must be remembered between decisions is in
// a [Gate], whose memory is bounded whatever strangers send; what an operator
// has written down is in [Rules]. All methods of a Gate, a Trial, a Slot and
// Rules are safe for concurrent use.
package policy

import (
	"cmp"
	"net/netip"
	"time"
)

// The signals that can refuse, a closed set for audit records and metric labels.
const (
	AddressLimit             = "address-limit"               // too many failed attempts from the address
	AccountLimit             = "account-limit"               // too many failed attempts on the account, and the network is new to it
	ConnectionsBeforeLogin   = "connections-before-login"    // of one address, not logged in
	ConnectionsNetwork       = "connections-network"         // of one network (/24, IPv6 /48), not logged in
	ConnectionsTotal         = "connections-total"           // of all addresses together, not logged in
	ConnectionsAccount       = "connections-account"         // sessions of the account
	ConnectionsAccountSource = "connections-account-address" // sessions of the account from one address
	RuleDenied               = "rule-denied"                 // a rule of the operator's says no
)

// A Decision says whether something may happen. The zero value is a refusal.
type Decision struct {
	Allowed  bool          `json:"allowed"`
	Signal   string        `json:"signal,omitempty"`   // what refused it, one of the constants above; "" when allowed
	Wait     time.Duration `json:"-"`                  // when trying again may help; 0: unknown, or when attempts in flight have ended
	Observed string        `json:"observed,omitempty"` // with Limits.Observe: the signal that would have refused

	// busy: only attempts in flight stand in the way, none has failed yet.
	busy bool
}

// Limits are the settings of a Gate. A field of zero means the default.
type Limits struct {
	// Observe lets every attempt through and only records in Decision.Observed
	// what would have refused it. The caps on connections stay enforced, for
	// they protect this machine's memory and not accounts.
	Observe bool

	AddressPerMinute int           // failed attempts of one address, IPv6: of its /64; default 10
	AddressPerDay    int           // the same over a day; default 50
	AccountFailures  int           // failed attempts on one account from networks new to it; default 10
	AccountPenalty   time.Duration // how long such networks then wait, doubling up to an hour; default 60 s

	ConnectionsBeforeLogin int // of one address (IPv6: /64), not logged in; default 40
	TotalBeforeLogin       int // of all addresses, not logged in; default 4,000
	PerAccountAndAddress   int // sessions of one account from one address (IPv6: /64); default 20
	PerAccount             int // sessions of one account; default 50
}

func (l Limits) withDefaults() Limits {
	l.AddressPerMinute = cmp.Or(l.AddressPerMinute, 10)
	l.AddressPerDay = cmp.Or(l.AddressPerDay, 50)
	l.AccountFailures = cmp.Or(l.AccountFailures, 10)
	l.AccountPenalty = cmp.Or(l.AccountPenalty, time.Minute)
	l.ConnectionsBeforeLogin = cmp.Or(l.ConnectionsBeforeLogin, 40)
	l.TotalBeforeLogin = cmp.Or(l.TotalBeforeLogin, 4000)
	l.PerAccountAndAddress = cmp.Or(l.PerAccountAndAddress, 20)
	l.PerAccount = cmp.Or(l.PerAccount, 50)
	return l
}

// An Attempt is one presented set of credentials, as far as policy knows it.
type Attempt struct {
	Addr    netip.Addr
	Account string
	// AppPassword: the secret is one that we issued to a device, or pretends to
	// be. It is too long to be guessed and says nothing of the main password,
	// so the account's own limits neither stop it nor learn from it.
	AppPassword bool
}

// A Source is where an attempt comes from. Make one with [SourceOf].
type Source struct {
	Addr netip.Addr // unmapped, without a zone
}

// SourceOf returns the source of a peer address: an IPv4 address carried in an
// IPv6 one is the IPv4 address, or else one peer would count as two.
func SourceOf(addr netip.Addr) Source {
	return Source{Addr: addr.Unmap().WithZone("")}
}

// Network is the neighbourhood that an account may be familiar with: the /24, or
// the IPv6 /48 that a site is commonly given (RFC 6177). An invalid address
// has the zero Prefix.
func (s Source) Network() netip.Prefix { return s.prefix(24, 48) }

// Site is what one customer holds and can't help sharing: the IPv4 address, or
// the IPv6 /64, within which a host picks addresses as it likes (RFC 8981). An
// invalid address has the zero Prefix, so all such count as one.
func (s Source) Site() netip.Prefix { return s.prefix(32, 64) }

func (s Source) prefix(v4, v6 int) netip.Prefix {
	bits := v6
	if s.Addr.Is4() {
		bits = v4
	}
	p, _ := s.Addr.Prefix(bits) // fails for the zero Addr only, with the zero Prefix
	return p
}

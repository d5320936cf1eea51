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
	"net/netip"
	"time"
)

// A Decision says whether something may happen. The zero value is a refusal.
type Decision struct {
	Allowed  bool          `json:"allowed"`
	Signal   string        `json:"signal,omitempty"`   // what refused it, one of the constants above; "" when allowed
	Wait     time.Duration `json:"-"`                  // when trying again may help; 0: unknown, or when attempts in flight have ended
	Observed string        `json:"observed,omitempty"` // the signal that would have refused or demanded, but that Limits has only observed

	Demand Demand `json:"demand,omitempty"` // what an attempt that is allowed must bring
	Why    string `json:"why,omitempty"`    // the signal that demands it

	// Looks is the signal whose refusal the client reads where the attempt is refused later,
	// whatever for: others are refused for it at this time, and must not learn from the
	// difference that they lacked something that this one had. "": nothing special.
	Looks string `json:"-"`

	// busy: only attempts in flight stand in the way, none has failed yet.
	busy bool
}

// Demand is what an attempt must bring beside a right password, whatever the settings ask for.
type Demand int

// The demands, each with all of those before it.
const (
	DemandNothing   Demand = iota // what the settings ask for
	DemandFactor                  // the password alone isn't enough
	DemandFreshCode               // nor is a grant
)

// String returns the demand's name.
func (d Demand) String() string {
	switch d {
	case DemandFactor:
		return "factor"
	case DemandFreshCode:
		return "fresh-code"
	}
	return "nothing"
}

// MarshalText writes the demand's name.
func (d Demand) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote; of anything else it makes the greatest demand.
func (d *Demand) UnmarshalText(text []byte) error {
	for *d = DemandNothing; *d < DemandFreshCode && d.String() != string(text); *d++ {
	}
	return nil
}

// An Attempt is one presented set of credentials, as far as policy knows it.
type Attempt struct {
	Addr    netip.Addr
	Account string
	// AppPassword: the secret is one that we issued to a device, or pretends to
	// be. It is too long to be guessed and says nothing of the main password,
	// so the account's own limits neither stop it nor learn from it.
	AppPassword bool
	// Secret is all that was presented, and Front what stands before a code, where it ends in what
	// looks like one. Both are hashed, and not kept.
	Secret, Front []byte
}

// Evidence is what an attempt brings beside its password, as it is found out before the upstream is
// asked about that.
type Evidence int

// The kinds of evidence.
const (
	Nothing       Evidence = iota // whatever the upstream says, it will be refused for want of a second factor
	PasswordAlone                 // the upstream's word alone decides
	RightCode                     // a code that is right and fresh
	Granted                       // a grant, or an app password
)

// A Failure is what was found wrong with an attempt.
type Failure struct {
	Password []byte // the part of the secret that was taken for the password; hashed, and not kept
	Right    bool   // it was right: something else was missing
	Code     bool   // the secret ended in what looked like a code
	Unknown  bool   // there is no record of the account
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

package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Limits are the settings of a Gate. A field of zero means the default.
type Limits struct {
	// Observe lets every attempt through and only records in Decision.Observed
	// what would have refused it. The caps on connections stay enforced, for
	// they protect this machine's memory and not accounts.
	Observe  bool
	Observed []string // the same for these signals alone

	AddressPerMinute int // failed attempts of one address, IPv6: of its /64; default 10
	AddressPerDay    int // the same over a day; default 50
	NATShare         int // percent of the accounts that signed in from a source lately, by which its limits grow; default 25, negative: 0

	NetworkAccounts int           // accounts that fail from one /24 (/48) within half an hour: more ban it; default 10
	NetworkUnknown  int           // accounts failing from there within an hour that nobody knows: so many ban it; default 5
	Ban             time.Duration // the first one of a network, doubling; default 10 min
	LongestBan      time.Duration // where the doubling ends; default 3 h

	AccountFailures int           // failed attempts on one account from networks new to it; default 10
	AccountPenalty  time.Duration // how long such networks then wait, doubling up to an hour; default 60 s
	AccountCodes    int           // failed attempts with a code from such networks in a day; default 100
	FamiliarPerDay  int           // failed attempts on one account from one of its homes; default 50

	AccountNetworks        int // networks that try one account in a day; default 12
	AccountNetworkFailures int // failures on one account in a day, from two of them at least; default 7

	PasswordPerHour int // accounts for which one password was wrong within an hour; default 5
	PasswordPerDay  int // the same within a day; default 8

	UnprovedPerHour  int // attempts from networks new to the account that lack a second factor, and are shown to the upstream all the same; default 5, negative: none
	StrangersPerHour int // failures where the password alone would have let in, from networks new to their accounts; for each of three distances from their homes; default: one for 400 accounts, and at least 30
	AlarmShare       int // percent points of failures above what is usual at this hour; default 30

	Tarpit       []time.Duration // how long refusals take after so many in a row; default 2, 4, 8, 15 s
	TarpitPlaces int             // attempts kept waiting for longer than the first of these at once; default 500
	Decoys       []string        // accounts that nobody has, as patterns of rules

	Trusted []netip.Prefix // networks without limits and bans
	Webmail []netip.Prefix // hosts that say where their users are, so that the connections that these share aren't those of one address

	ConnectionsBeforeLogin int // of one address (IPv6: /64), not logged in; default 40
	TotalBeforeLogin       int // of all addresses, not logged in, a quarter of it where somebody is at home; default 4,000
	PerAccountAndAddress   int // sessions of one account from one address (IPv6: /64); default 20
	PerAccount             int // sessions of one account; default 50
}

func (l Limits) withDefaults() Limits {
	l.AddressPerMinute = cmp.Or(l.AddressPerMinute, 10)
	l.AddressPerDay = cmp.Or(l.AddressPerDay, 50)
	l.NATShare = max(0, cmp.Or(l.NATShare, 25))
	l.NetworkAccounts = cmp.Or(l.NetworkAccounts, 10)
	l.NetworkUnknown = cmp.Or(l.NetworkUnknown, 5)
	l.Ban = cmp.Or(l.Ban, 10*time.Minute)
	l.LongestBan = cmp.Or(l.LongestBan, 3*time.Hour)
	l.AccountFailures = cmp.Or(l.AccountFailures, 10)
	l.AccountPenalty = cmp.Or(l.AccountPenalty, time.Minute)
	l.AccountCodes = cmp.Or(l.AccountCodes, 100)
	l.FamiliarPerDay = cmp.Or(l.FamiliarPerDay, 50)
	l.AccountNetworks = cmp.Or(l.AccountNetworks, 12)
	l.AccountNetworkFailures = cmp.Or(l.AccountNetworkFailures, 7)
	l.PasswordPerHour = cmp.Or(l.PasswordPerHour, 5)
	l.PasswordPerDay = cmp.Or(l.PasswordPerDay, 8)
	l.UnprovedPerHour = max(0, cmp.Or(l.UnprovedPerHour, 5))
	l.AlarmShare = cmp.Or(l.AlarmShare, 30)
	if len(l.Tarpit) == 0 {
		l.Tarpit = []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second}
	}
	l.TarpitPlaces = cmp.Or(l.TarpitPlaces, 500)
	l.ConnectionsBeforeLogin = cmp.Or(l.ConnectionsBeforeLogin, 40)
	l.TotalBeforeLogin = cmp.Or(l.TotalBeforeLogin, 4000)
	l.PerAccountAndAddress = cmp.Or(l.PerAccountAndAddress, 20)
	l.PerAccount = cmp.Or(l.PerAccount, 50)
	return l
}

// observes says whether the signal only records what it would do.
func (l *Limits) observes(signal string) bool {
	return l.Observe || len(l.Observed) > 0 && slices.Contains(l.Observed, signal)
}

// trusts says whether the address is in a network without limits and bans.
func (l *Limits) trusts(addr netip.Addr) bool { return contain(l.Trusted, addr) }

// isWebmail says whether the address is one of a host that says where its users are.
func (l *Limits) isWebmail(addr netip.Addr) bool { return contain(l.Webmail, addr) }

func contain(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return unmapped(p).Contains(addr) })
}

// isDecoy says whether nobody has the account.
func (l *Limits) isDecoy(account string) bool {
	return slices.ContainsFunc(l.Decoys, func(pattern string) bool { return glob(pattern, account) })
}

package policy

import "net/netip"

// The signals that can refuse or ask for more, a closed set for audit records and metric labels.
const (
	AddressLimit    = "address-limit"    // too many failed attempts from the address
	RangeLimit      = "range-limit"      // too many from the addresses around it
	NetworkAccounts = "network-accounts" // too many accounts fail from the network: it is banned
	NetworkUnknown  = "network-unknown"  // too many accounts that nobody knows fail from the network: it is banned
	Banned          = "banned"           // the address is in a network that is banned
	DecoyAccount    = "decoy-account"    // an account that nobody has: its source is banned
	TarpitBusy      = "tarpit"           // a source that failed lately has one attempt at a time

	FamiliarLimit   = "familiar-limit"   // too many failed attempts on the account from one of its own networks
	AccountLimit    = "account-limit"    // too many failed attempts on the account, and the network is new to it
	AccountCodes    = "account-codes"    // too many wrong codes for the account, and the network is new to it
	AccountNetworks = "account-networks" // many networks try the account: the password alone isn't enough from new ones

	PasswordSprayed = "password-sprayed" // the same wrong password was tried on many accounts: a fresh code is needed
	PasswordCommon  = "password-common"  // it is on the list of common passwords

	Unproved       = "unproved"        // it lacks a second factor, so the upstream needn't be asked
	Repeated       = "repeated"        // the upstream refused the very same a moment ago
	StrangersLimit = "strangers-limit" // networks new to their accounts have failed too often, all together
	MachineAlarm   = "machine-alarm"   // far more attempts fail than is usual at this hour

	ConnectionsBeforeLogin   = "connections-before-login"    // of one address, not logged in
	ConnectionsNetwork       = "connections-network"         // of one network (/24, IPv6 /48), not logged in
	ConnectionsTotal         = "connections-total"           // of all addresses together, not logged in
	ConnectionsAccount       = "connections-account"         // sessions of the account
	ConnectionsAccountSource = "connections-account-address" // sessions of the account from one address
	RuleDenied               = "rule-denied"                 // a rule of the operator's says no
)

// Signals returns all that [Limits].Observed may name, in no order that matters.
func Signals() []string {
	return []string{
		AddressLimit, RangeLimit, NetworkAccounts, NetworkUnknown, DecoyAccount, TarpitBusy,
		FamiliarLimit, AccountLimit, AccountCodes, AccountNetworks,
		PasswordSprayed, PasswordCommon, Unproved, StrangersLimit, MachineAlarm,
	}
}

// An Alert is what somebody should be told at once.
type Alert struct {
	Signal  string
	Account string       // whose; "" where it is about no single one
	Source  netip.Addr   // what brought it about; invalid where many did
	Network netip.Prefix // what was banned; invalid where nothing was
	Right   bool         // a password that is being sprayed was right for Account
	Detail  string       // for people
}

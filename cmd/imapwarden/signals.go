package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"imapwarden/admin"
	"imapwarden/auth"
	"imapwarden/policy"
)

// signalTexts say why policy refuses or asks for more.
var signalTexts = map[string]string{
	policy.AddressLimit:    "too many attempts from that address have failed",
	policy.RangeLimit:      "too many attempts from the addresses around it have failed",
	policy.NetworkAccounts: "too many accounts have failed from that network",
	policy.NetworkUnknown:  "too many accounts that nobody knows were tried from that network",
	policy.Banned:          "it is banned",
	policy.DecoyAccount:    "it is an account that nobody has",
	policy.TarpitBusy:      "another attempt from that address is still waiting for its refusal",

	policy.FamiliarLimit:   "too many attempts on the account from that network of its own have failed",
	policy.AccountLimit:    "too many attempts on the account have failed, and it never signed in from that network",
	policy.AccountCodes:    "too many wrong codes were tried on the account, and it never signed in from that network",
	policy.AccountNetworks: "many networks have tried the account",

	policy.PasswordSprayed: "the password is tried on many accounts",
	policy.PasswordCommon:  "the password is a common one",

	policy.Unproved:       "nothing counts as a second factor, so the upstream isn't asked",
	policy.Repeated:       "the upstream has just refused the same",
	policy.StrangersLimit: "too many attempts from networks that are new to their accounts have failed, of all together",
	policy.MachineAlarm:   "far more logins fail than is usual at this hour",

	policy.ConnectionsBeforeLogin:   "that address has too many connections that haven't logged in",
	policy.ConnectionsNetwork:       "that network has too many connections that haven't logged in",
	policy.ConnectionsTotal:         "there are too many connections that haven't logged in",
	policy.ConnectionsAccount:       "the account has too many sessions",
	policy.ConnectionsAccountSource: "the account has too many sessions from that address",
	policy.RuleDenied:               "a rule refuses it",
	policy.ByHand:                   "an administrator has banned it",
}

// signalText is what people read of a signal.
func signalText(signal string) string { return cmp.Or(signalTexts[signal], signal) }

func explainLimits(b *strings.Builder, e admin.Explanation) {
	l := e.Limits
	if l == nil {
		fmt.Fprint(b, "No running server was asked, so how far limits are used up isn't known.\n")
		for _, ban := range e.Bans {
			fmt.Fprintf(b, "  - %s is banned until %s: %s.\n", ban.Network, clock(ban.Until), printable(banWhy(ban)))
		}
		return
	}
	fmt.Fprintf(b, "%s\n", explainDecision(l, bareIsEnough(e.Login)))
	item := func(format string, args ...any) { fmt.Fprintf(b, "  - "+format+"\n", args...) }
	switch {
	case l.Trusted:
		item("The address is in limits.trusted: it has no limits of its own.")
	case l.Ban != "":
		item("%s is banned until %s: %s.", l.Ban, l.BanUntil.Local().Format(time.DateTime), signalText(l.BanSignal))
	}
	if l.Familiar {
		item("The account is familiar with that network, whose failures count for themselves: %d of %d today.", l.HomeFailures, l.HomeLimit)
	} else {
		item("The account isn't familiar with that network.")
		explainStranger(item, l)
	}
	item("Failures of the account from other networks: %d of %d.", l.AccountFailures, l.AccountLimit)
	item("Failures that the address has left: %d of %d in this minute, %d of %d today.",
		l.AddressLeftMinute, l.AddressPerMinute, l.AddressLeftDay, l.AddressPerDay)
	if l.FailuresInARow > 0 {
		item("Failures of the address in a row: %d. The next refusal takes %d s.", l.FailuresInARow, l.TarpitSeconds)
	}
	if l.NetworkFailing > 0 {
		item("Accounts that failed from the network within half an hour: %d, and within an hour, of those that nobody knows: %d.", l.NetworkFailing, l.NetworkUnknown)
	}
	if l.Alarm {
		item("Far more logins fail than is usual at this hour: new grants are short, refusals slow.")
	}
	item("Sessions of the account: %d of %d, from that address %d of %d.", l.Sessions, l.SessionsLimit, l.SessionsHere, l.SessionsHereLimit)
	item("Connections of the address that haven't logged in: %d of %d.", l.BeforeLoginHere, l.BeforeLoginLimit)
}

// bareIsEnough says whether the password alone would let the account in.
func bareIsEnough(e auth.Explanation) bool {
	return slices.ContainsFunc(e.Prospects, func(p auth.Prospect) bool {
		return p.Outcome == auth.Accepted.String() && p.Factor == auth.FactorNone
	})
}

// explainDecision begins with what becomes of the attempt. Where the account's password alone
// isn't enough, one that brings nothing else is judged by Unproved.
func explainDecision(l *policy.Explanation, bareIsEnough bool) string {
	switch d := l.Decision; {
	case !d.Allowed && l.Busy:
		return fmt.Sprintf("An attempt with the password would be refused until others that are under way have ended: %s.", signalText(d.Signal))
	case !d.Allowed && l.WaitSeconds > 0:
		return fmt.Sprintf("An attempt with the password would be refused for another %s: %s.", time.Duration(l.WaitSeconds)*time.Second, signalText(d.Signal))
	case !d.Allowed:
		return fmt.Sprintf("An attempt with the password would be refused: %s.", signalText(d.Signal))
	case d.Observed != "":
		return fmt.Sprintf("The limits let it pass only because that signal is observed: %s.", signalText(d.Observed))
	case d.Demand == policy.DemandFreshCode:
		return fmt.Sprintf("The limits let it pass with a fresh code only: %s.", signalText(d.Why))
	case d.Demand == policy.DemandFactor:
		return fmt.Sprintf("The limits let it pass with a second factor only: %s.", signalText(d.Why))
	}
	if !l.Unproved.Allowed && !bareIsEnough {
		return fmt.Sprintf("Without anything that counts as a second factor it is refused: %s. With it, the limits let it pass.", signalText(l.Unproved.Signal))
	}
	return "The limits let it pass."
}

// explainStranger says what goes for who comes from a network that is new to the account, where
// that differs by what they bring.
func explainStranger(item func(string, ...any), l *policy.Explanation) {
	switch {
	case !l.RightCode.Allowed:
		item("With a right code: refused, %s.", signalText(l.RightCode.Signal))
	case !l.PasswordAlone.Allowed:
		item("With a right code or an app password that doesn't matter.")
	}
	if l.AccountSiege {
		item("%d networks have tried the account within a day: from new ones, its password alone isn't enough for now.", l.AccountNetworks)
	}
}

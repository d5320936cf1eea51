package policy

import (
	"cmp"
	"time"
)

// facts is everything that the first decision about an attempt depends on: whether it may be
// judged now.
type facts struct {
	limits      *Limits
	trusted     bool // the source has no limits
	app         bool // an app password, or what looks like one: it can't be guessed
	familiar    bool // the account signed in from this network before, with this kind of secret
	ban         banFacts
	home        homeFacts
	tarpit      tarpitFacts
	site        addressFacts
	narrow, far addressFacts // of the prefixes around the site
}

// judge decides whether an attempt may be judged now. The first signal that
// refuses is the one named.
func judge(f facts) Decision {
	switch {
	case f.trusted:
		return Decision{Allowed: true}
	case f.familiar:
		return f.first(judgeBan(f.ban, true), judgeHome(f.home))
	case f.app:
		return f.first(judgeBan(f.ban, true), judgeTarpit(f.tarpit), judgeAddress(f.site, AddressLimit))
	}
	return f.first(judgeBan(f.ban, false), judgeTarpit(f.tarpit),
		judgeAddress(f.site, AddressLimit), judgeAddress(f.narrow, RangeLimit), judgeAddress(f.far, RangeLimit))
}

// first returns the first decision that refuses and isn't only observed.
func (f facts) first(decisions ...Decision) Decision { return f.limits.first(decisions...) }

func (l *Limits) first(decisions ...Decision) Decision {
	out := Decision{Allowed: true}
	for _, d := range decisions {
		switch {
		case d.Allowed:
		case !l.observes(d.Signal) || d.Signal == Banned && !l.Observe:
			return d
		case !d.busy && out.Observed == "": // a busy one might only have waited a little
			out.Observed = d.Signal
		}
	}
	return out
}

// strangerFacts is everything that the second decision about an attempt depends on, where the network
// is new to the account: whether the upstream may be asked.
type strangerFacts struct {
	limits   *Limits
	evidence Evidence
	repeated bool // the upstream refused the very same a moment ago
	account  accountFacts
	machine  machineFacts
}

// judgeStranger decides by what the attempt brings beside its password. Whoever brings a second factor
// isn't held up by what others have done to the account. Whoever can't be let in whatever the
// upstream says needn't bother it.
func judgeStranger(f strangerFacts) Decision {
	var d Decision
	switch f.evidence {
	case Granted:
		return Decision{Allowed: true}
	case RightCode:
		d = f.limits.first(judgeCodes(f.account))
	case PasswordAlone:
		d = f.limits.first(judgeAccount(f.account), judgeRepeated(f.repeated), judgeStrangers(f.machine))
	default:
		d = f.limits.first(judgeAccount(f.account), judgeRepeated(f.repeated), judgeUnproved(f.machine))
	}
	if looks := f.looks(); looks != d.Signal {
		d.Looks = looks
	}
	return d
}

// looks is what those who bring less are refused for.
func (f strangerFacts) looks() string {
	switch {
	case f.account.penalty > 0 && !f.limits.observes(AccountLimit):
		return AccountLimit
	case f.machine.strangers < 1 && !f.limits.observes(StrangersLimit):
		return StrangersLimit
	}
	return ""
}

func judgeRepeated(repeated bool) Decision {
	if repeated {
		return Decision{Signal: Repeated}
	}
	return Decision{Allowed: true}
}

func judgeStrangers(f machineFacts) Decision {
	if f.strangers < 1 {
		return refuse(StrangersLimit, f.refill)
	}
	return Decision{Allowed: true}
}

func judgeUnproved(f machineFacts) Decision {
	if f.unproved < 1 {
		return Decision{Signal: Unproved}
	}
	return Decision{Allowed: true}
}

// with adds a later decision to one that allows: its refusal, or its demand.
func (d Decision) with(more Decision) Decision {
	if !more.Allowed {
		return more
	}
	if more.Demand > d.Demand {
		d.Demand, d.Why = more.Demand, more.Why
	}
	d.Observed = cmp.Or(d.Observed, more.Observed)
	d.Looks = cmp.Or(d.Looks, more.Looks)
	return d
}

// refuse is the refusal by a signal, with the wait rounded up to a full second and
// never 0, so that whoever waits that long does find the limit lifted.
func refuse(signal string, wait time.Duration) Decision {
	return Decision{Signal: signal, Wait: max(time.Second, (wait + time.Second - 1).Truncate(time.Second))}
}

// refuseBusy is the refusal because attempts in flight could use up what is left.
func refuseBusy(signal string) Decision {
	return Decision{Signal: signal, busy: true}
}

package policy

import "time"

// facts is everything that a decision about an attempt depends on.
type facts struct {
	observe     bool
	appPassword bool
	familiar    bool // the account signed in from this network before, with this kind of secret
	home        homeFacts
	address     addressFacts
	account     accountFacts
}

// judge decides whether an attempt may be judged now. The first signal that
// refuses is the one named.
func judge(f facts) Decision {
	decisions := [...]Decision{judgeAddress(f.address), judgeAccount(f.account)}
	switch {
	case f.familiar:
		decisions = [...]Decision{judgeHome(f.home), {Allowed: true}}
	case f.appPassword:
		decisions[1] = Decision{Allowed: true}
	}
	for _, d := range decisions {
		switch {
		case d.Allowed:
		case !f.observe:
			return d
		case !d.busy: // a busy one might only have waited a little
			return Decision{Allowed: true, Observed: d.Signal}
		}
	}
	return Decision{Allowed: true}
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

package policy

import "time"

// Common knows which passwords are common.
type Common interface {
	Has(password []byte) bool
}

// CommonAction is what goes for attempts with a common password from networks new to the account.
type CommonAction string

// The actions. The zero value is CommonFreshCode.
const (
	CommonFreshCode CommonAction = "fresh-code" // they need a fresh code
	CommonRefuse    CommonAction = "refuse"     // they are refused
	CommonReport    CommonAction = "report"     // nothing: accounts that use one are reported only
)

// demandFacts is everything that the decision depends on whether an attempt must bring more than the
// settings ask for.
type demandFacts struct {
	limits   *Limits
	familiar bool
	sprayed  bool // the password is being sprayed
	common   bool // it is a common one
	action   CommonAction
	siege    bool // many networks have tried the account lately
	repeated bool // the very same was refused a moment ago
}

// judgeDemand decides it. A password that is being sprayed needs a fresh code from everywhere, since
// nobody can say where its sprayer comes from next; the rest concerns strangers only.
func judgeDemand(f demandFacts) Decision {
	d := Decision{Allowed: true}
	ask := func(demand Demand, signal string) {
		switch {
		case f.limits.observes(signal):
			if d.Observed == "" {
				d.Observed = signal
			}
		case demand > d.Demand:
			d.Demand, d.Why = demand, signal
		}
	}
	if f.sprayed {
		ask(DemandFreshCode, PasswordSprayed)
	}
	if f.familiar {
		return d
	}
	switch {
	case !f.common, f.action == CommonReport:
	case f.action == CommonRefuse && !f.limits.observes(PasswordCommon):
		return Decision{Signal: PasswordCommon}
	default:
		ask(DemandFreshCode, PasswordCommon)
	}
	if f.siege {
		ask(DemandFactor, AccountNetworks)
	}
	return d
}

// repeatMemory is for how long the upstream needn't be asked again about a stranger's attempt that
// it has refused: no longer, for its mind may have changed.
const repeatMemory = 10 * time.Minute

func (g *Gate) demandFacts(t *Trial, at Attempt, now time.Time) demandFacts {
	f := demandFacts{limits: &g.limits, familiar: t.familiar, action: g.CommonAction}
	for _, password := range [][]byte{at.Secret, at.Front} {
		if len(password) == 0 {
			continue
		}
		f.sprayed = f.sprayed || g.sprayed(password, now)
		f.common = f.common || g.Common != nil && g.Common.Has(password)
	}
	if !t.familiar {
		close := g.closeness(t, now)
		g.accounts.look(t.kindKey, func(e *accountEntry, _ *flying) {
			f.siege = within(until(e.siege, now), siegeLasts) > 0 && close != crowded
			if i := e.seen.index(t.sight); i >= 0 {
				f.repeated = since(e.seen[i].at, now) < repeatMemory
			}
		})
	}
	return f
}

package policy

import "time"

// An Explanation is everything that a decision about an attempt depends on, for an
// operator to read. All numbers are filled in, also those that the decision doesn't
// ask for: where the network is familiar for the attempt's kind of secret, only the
// home counts; elsewhere the address does, and for a password the account.
type Explanation struct {
	Decision    Decision `json:"decision"`     // what Begin would say now
	WaitSeconds int      `json:"wait_seconds"` // Decision.Wait
	Busy        bool     `json:"busy"`         // the decision is no because of attempts in flight only
	Observe     bool     `json:"observe"`      // as Limits.Observe
	Familiar    bool     `json:"familiar"`     // the account signed in from this network before

	AccountFailures       int           `json:"account_failures"` // since the last penalty began
	AccountLimit          int           `json:"account_limit"`
	AccountPenalty        time.Duration `json:"-"` // what remains of one
	AccountPenaltySeconds int           `json:"account_penalty_seconds"`

	AddressLeftMinute int `json:"address_left_minute"` // failures left, of AddressPerMinute
	AddressPerMinute  int `json:"address_per_minute"`
	AddressLeftDay    int `json:"address_left_day"` // failures left, of AddressPerDay
	AddressPerDay     int `json:"address_per_day"`

	HomeFailures int `json:"home_failures"` // of this day; 0 where the network isn't familiar
	HomeLimit    int `json:"home_limit"`    // in a day

	Sessions          int `json:"sessions"`       // of the account
	SessionsLimit     int `json:"sessions_limit"` // where no rule sets another
	SessionsHere      int `json:"sessions_here"`  // of them, from the address
	SessionsHereLimit int `json:"sessions_here_limit"`
	BeforeLoginHere   int `json:"before_login_here"` // connections of the address that haven't logged in
	BeforeLoginLimit  int `json:"before_login_limit"`
}

// Explain says what Begin would decide about the attempt now, and from what. It
// changes nothing, and remembers nothing of having been asked.
func (g *Gate) Explain(at Attempt) Explanation {
	g.start()
	f := g.facts(at, time.Now())
	d := judge(f)
	e := Explanation{
		Decision:    d,
		WaitSeconds: fullSeconds(d.Wait),
		Busy:        d.busy,
		Observe:     f.observe,
		Familiar:    f.familiar,

		AccountFailures:       g.limits.AccountFailures - f.account.left,
		AccountLimit:          g.limits.AccountFailures,
		AccountPenalty:        f.account.penalty,
		AccountPenaltySeconds: fullSeconds(f.account.penalty),

		AddressLeftMinute: int(f.address.minute),
		AddressPerMinute:  g.limits.AddressPerMinute,
		AddressLeftDay:    int(f.address.day),
		AddressPerDay:     g.limits.AddressPerDay,

		HomeLimit: g.limits.AddressPerDay,
	}
	if f.familiar {
		e.HomeFailures = g.limits.AddressPerDay - f.home.left
	}
	g.explainSlots(at, &e)
	return e
}

// facts gathers all at once what begin gathers step by step while it counts.
func (g *Gate) facts(at Attempt, now time.Time) facts {
	source := SourceOf(at.Addr)
	f := facts{observe: g.limits.Observe, appPassword: at.AppPassword}
	g.familiar.look(familiarKey{at.Account, at.AppPassword}, func(e *familiarEntry) {
		if h := e.home(source.Network()); h != nil {
			door := h.peek(source.Site())
			f.familiar, f.home = true, door.facts(now, g.limits.AddressPerDay)
			if f.strangersAtHome(door.site, judge(f)) {
				f.familiar, f.home = false, homeFacts{}
			}
		}
	})
	g.addresses.look(source.Site(), func(e *addressEntry) { f.address = e.facts(now) })
	g.accounts.look(at.Account, func(e *accountEntry) { f.account = e.facts(now, g.limits.AccountFailures) })
	return f
}

func (g *Gate) explainSlots(at Attempt, e *Explanation) {
	site := SourceOf(at.Addr).Site()
	e.SessionsLimit, e.SessionsHereLimit = g.limits.PerAccount, g.limits.PerAccountAndAddress
	e.BeforeLoginLimit = g.limits.ConnectionsBeforeLogin
	s := &g.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Sessions, e.SessionsHere = s.accounts[at.Account], s.pairs[pair{at.Account, site}]
	e.BeforeLoginHere = s.sites[site]
}

// fullSeconds rounds up, so that whoever waits so long has waited long enough.
func fullSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

package policy

import (
	"time"
)

// An Explanation is everything that a decision about an attempt depends on, for an
// operator to read. All numbers are filled in, also those that the decision doesn't
// ask for: where the network is familiar for the attempt's kind of secret, only the
// home counts; elsewhere the source does, and for a password the account.
type Explanation struct {
	Decision    Decision `json:"decision"`     // what Begin would say now, and then Weigh about a password that is enough alone
	WaitSeconds int      `json:"wait_seconds"` // Decision.Wait
	Busy        bool     `json:"busy"`         // the decision is no because of attempts in flight only
	Observe     bool     `json:"observe"`      // as Limits.Observe
	Familiar    bool     `json:"familiar"`     // the account signed in from this network before
	Trusted     bool     `json:"trusted"`      // the source has no limits

	// What Weigh would say now, by what an attempt brings: nothing that counts as a second
	// factor, a password that is enough alone, a right code. A familiar source is never refused by it.
	Unproved      Decision `json:"unproved"`
	PasswordAlone Decision `json:"password_alone"`
	RightCode     Decision `json:"right_code"`

	Ban            string    `json:"ban,omitempty"` // the banned network that holds the address
	BanSignal      string    `json:"ban_signal,omitempty"`
	BanUntil       time.Time `json:"ban_until,omitzero"`
	FailuresInARow int       `json:"failures_in_a_row"` // of the address
	TarpitSeconds  int       `json:"tarpit_seconds"`    // how long the refusal of the next failure takes

	AccountFailures       int           `json:"account_failures"` // since the last penalty began
	AccountLimit          int           `json:"account_limit"`
	AccountPenalty        time.Duration `json:"-"` // what remains of one
	AccountPenaltySeconds int           `json:"account_penalty_seconds"`
	AccountCodesLeft      int           `json:"account_codes_left"` // failures with a code, of a day
	AccountNetworks       int           `json:"account_networks"`   // new to it, that tried it within a day
	AccountSiege          bool          `json:"account_siege"`      // so many that the password alone isn't enough from new ones

	AddressLeftMinute int `json:"address_left_minute"` // failures left, of AddressPerMinute
	AddressPerMinute  int `json:"address_per_minute"`  // with what is added for those who sign in from there
	AddressLeftDay    int `json:"address_left_day"`    // failures left, of AddressPerDay
	AddressPerDay     int `json:"address_per_day"`

	NetworkFailing int  `json:"network_failing"` // accounts that failed from the /24 (/48) within half an hour
	NetworkUnknown int  `json:"network_unknown"` // of those within an hour, how many nobody knows
	NetworkHome    bool `json:"network_home"`    // some account is at home there

	HomeFailures int `json:"home_failures"` // of this day; 0 where the network isn't familiar
	HomeLimit    int `json:"home_limit"`    // in a day

	Alarm bool `json:"alarm"` // far more attempts fail on this machine than is usual at this hour

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
	now := g.now()
	t := g.trial(at, now)
	e := Explanation{
		Observe:          g.limits.Observe,
		Trusted:          t.trusted,
		AccountLimit:     g.limits.AccountFailures,
		HomeLimit:        g.limits.FamiliarPerDay,
		Alarm:            g.Alarmed(),
		SessionsLimit:    g.limits.PerAccount,
		BeforeLoginLimit: g.limits.ConnectionsBeforeLogin,
	}
	g.explainBegin(t, at, now, &e)
	g.explainWeigh(t, now, &e)
	if e.Decision.Allowed {
		e.Decision = e.Decision.with(e.PasswordAlone)
	}
	e.WaitSeconds, e.Busy = fullSeconds(e.Decision.Wait), e.Decision.busy
	g.explainNetwork(t.source, now, &e)
	g.explainSlots(at, &e)
	return e
}

// explainBegin gathers all at once what begin gathers step by step while it counts.
func (g *Gate) explainBegin(t *Trial, at Attempt, now time.Time, e *Explanation) {
	f := g.sourceFacts(t, now)
	g.familiar.look(t.kindKey, func(known *familiarEntry, _ *flying) {
		if h := known.home(t.source.Network(), now); h != nil {
			door := h.peek(t.source.Site())
			f.familiar, f.home = true, door.facts(now, &g.limits)
			if f.strangersAtHome(door.site, judge(f)) {
				f.familiar, f.home = false, homeFacts{}
			}
		}
	})
	t.familiar, e.Familiar = f.familiar, f.familiar
	if f.familiar {
		e.HomeLimit, e.HomeFailures = f.home.limit, f.home.limit-f.home.left
	}
	g.rangeFacts(t, now, &f)
	g.sites.look(t.siteKey, func(site *siteEntry, fl *flying) {
		f.siteFacts(site, fl, now)
		a := g.limits.allowance(1, site.signed.count(now))
		e.AddressPerMinute, e.AddressPerDay = a.minute.burst, a.day.burst
		e.FailuresInARow = site.inARow(now)
		e.TarpitSeconds = fullSeconds(g.limits.lasts(e.FailuresInARow+1, e.Alarm))
	})
	e.AddressLeftMinute, e.AddressLeftDay = int(f.site.minute), int(f.site.day)
	if ban, ok := g.bans.find(t.source.Addr, now); ok {
		e.Ban, e.BanSignal, e.BanUntil = ban.Network.String(), ban.Signal, ban.Until
	}
	d := judge(f)
	if g.limits.isDecoy(at.Account) {
		d = g.limits.first(Decision{Signal: DecoyAccount})
	}
	if d.Allowed && !at.AppPassword {
		f := g.demandFacts(t, at, now)
		t.repeated = f.repeated
		d = d.with(judgeDemand(f))
	}
	e.Decision = d
}

func (g *Gate) explainWeigh(t *Trial, now time.Time, e *Explanation) {
	f := strangerFacts{limits: &g.limits, repeated: t.repeated, machine: g.machine.facts(g.closeness(t, now), g.familiar.len(), &g.limits, now)}
	key := g.accountKindKey(t.account, false)
	g.accounts.look(key, func(known *accountEntry, fl *flying) {
		f.account = known.facts(now, fl.count, &g.limits)
		e.AccountNetworks = len(known.visits)
		e.AccountSiege = until(known.siege, now) > 0
	})
	e.AccountFailures = g.limits.AccountFailures - f.account.left
	e.AccountPenalty, e.AccountPenaltySeconds = f.account.penalty, fullSeconds(f.account.penalty)
	e.AccountCodesLeft = int(f.account.codes)
	yes := Decision{Allowed: true}
	e.Unproved, e.PasswordAlone, e.RightCode = yes, yes, yes
	if t.familiar || t.app {
		return
	}
	for evidence, d := range map[Evidence]*Decision{Nothing: &e.Unproved, PasswordAlone: &e.PasswordAlone, RightCode: &e.RightCode} {
		f.evidence = evidence
		*d = judgeStranger(f)
	}
}

func (g *Gate) explainNetwork(source Source, now time.Time, e *Explanation) {
	g.networks.look(g.prefixKey(source.Network()), func(known *networkEntry, _ *flying) {
		f := known.facts(now)
		e.NetworkFailing, e.NetworkUnknown, e.NetworkHome = f.failing, f.unknown, known.resides(now)
	})
}

func (g *Gate) explainSlots(at Attempt, e *Explanation) {
	site := SourceOf(at.Addr).Site()
	e.SessionsHereLimit = g.limits.PerAccountAndAddress
	s := &g.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	e.Sessions, e.SessionsHere = s.accounts[at.Account], s.pairs[pair{at.Account, site}]
	e.BeforeLoginHere = s.sites[site]
}

// fullSeconds rounds up, so that whoever waits so long has waited long enough.
func fullSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

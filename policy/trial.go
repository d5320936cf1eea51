package policy

import (
	"context"
	"fmt"
	"hash/maphash"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// A Trial is an attempt that is being judged. Succeeded, Failed or Release ends it: the first of them
// counts. Release is called in any case, when the client has its answer: until then
// a source that failed before has no other attempt.
type Trial struct {
	gate    *Gate
	source  Source
	account string
	app     bool
	kindKey uint64 // of the account, with this kind of secret
	siteKey uint64
	sight   uint32 // of the secret, from here

	trusted  bool
	familiar bool         // when it began
	door     netip.Prefix // which one of the home, then
	// The account is at home in the network, and never signed in from the site itself.
	neighbour bool
	repeated  bool
	limited   bool // the account or strangers are held up: those who bring less are refused now
	held      bool // and this is one of them

	// Where it counts as in flight.
	doored  bool // by the door
	sited   bool // for its site
	ranged  int  // for so many of its ranges
	weighed bool // for the account
	alone   bool // for strangers with a password alone, as close as that:
	close   closeness

	ended atomic.Bool
	kept  atomic.Bool // it keeps its source's only place in the tarpit
	lasts time.Duration
}

func (g *Gate) trial(at Attempt, now time.Time) *Trial {
	t := &Trial{
		gate:    g,
		source:  SourceOf(at.Addr),
		account: strings.Clone(at.Account), // it may be part of a long line
		app:     at.AppPassword,
		kindKey: g.accountKindKey(at.Account, at.AppPassword),
	}
	if t.siteKey = g.prefixKey(t.source.Site()); t.app { // others' guesses don't hold up devices behind the same address
		t.siteKey = ^t.siteKey
	}
	t.trusted = g.limits.trusts(t.source.Addr)
	t.sight = t.sightOf(at.Secret, now)
	return t
}

// sightOf is a secret from a site, small enough to keep ten of for each account.
func (t *Trial) sightOf(secret []byte, now time.Time) uint32 {
	return uint32(maphash.Comparable(t.gate.seed, struct{ digest, site uint64 }{
		t.gate.keys.at(now).today.digest(t.account, secret), t.siteKey,
	}))
}

// Weigh decides whether the upstream may be asked about the password, now that it is known what the
// attempt brings beside it. Where only attempts in flight stand in the way, it waits until
// ctx ends. A trial that isn't allowed goes on until it is ended.
func (t *Trial) Weigh(ctx context.Context, evidence Evidence) Decision {
	for {
		d, settled := t.weigh(evidence)
		if !wait(ctx, settled) {
			return d
		}
	}
}

func (t *Trial) weigh(evidence Evidence) (d Decision, settled <-chan struct{}) {
	g, now := t.gate, t.gate.now()
	if t.familiar || t.app {
		d = Decision{Allowed: true}
		if evidence == Nothing && t.neighbour { // of somebody at home: the upstream is spared as from elsewhere
			d = g.machine.showUnproved(d, now, &g.limits)
		}
		return d, nil
	}
	t.close = g.closeness(t, now)
	f := strangerFacts{
		limits:   &g.limits,
		evidence: evidence,
		repeated: t.repeated,
		machine:  g.machine.facts(t.close, g.familiar.len(), &g.limits, now),
	}
	g.accounts.with(t.kindKey, now, func(e *accountEntry, fl *flying) {
		f.account = e.facts(now, fl.count, &g.limits)
		d = judgeStranger(f)
		settled = fl.enter(d)
		t.weighed = d.Allowed
	})
	t.held = d.Signal == AccountLimit || d.Signal == StrangersLimit
	t.limited = t.held || f.looks() != ""
	switch {
	case !d.Allowed:
	case evidence == Nothing:
		d = g.machine.showUnproved(d, now, &g.limits)
	case evidence == PasswordAlone:
		if d, settled = g.machine.enterStranger(d, t.close, g.familiar.len(), now, &g.limits); !d.Allowed {
			g.accounts.with(t.kindKey, now, func(_ *accountEntry, fl *flying) { fl.leave() })
			t.weighed, t.limited, t.held = false, true, true
			return d, settled
		}
		t.alone = true
	}
	return d, settled
}

// ranges returns the prefixes around the source that share budgets. App passwords can't be guessed: they
// share none.
func (t *Trial) ranges() []aRange {
	if t.app {
		return nil
	}
	ranges := t.source.ranges()
	return ranges[:]
}

// Failed says that the attempt was wrong. It is charged to the source and to the account, unless the
// same secret was wrong for that account from that site before: it returns that.
func (t *Trial) Failed(f Failure) (again bool) {
	if t.ended.Swap(true) {
		return false
	}
	now := t.gate.now()
	var alerts []Alert
	if t.limited {
		return t.failedLimited(f, now)
	}
	if t.familiar {
		if again = t.failedAtHome(now); !again && !t.app {
			t.chargeSource(now)
		}
	} else {
		again, alerts = t.failedAbroad(f, now)
	}
	t.tarpit(again, now)
	if !again && t.gate.machine.count(true, now, t.gate.alarmShare()) {
		alerts = append(alerts, Alert{Signal: MachineAlarm, Detail: "far more logins fail than is usual at this hour"})
	}
	switch {
	case t.app:
	case f.Right:
		alerts = append(alerts, t.right(f.Password, now)...)
	default:
		alerts = append(alerts, t.gate.noteWrongPassword(f.Password, t.account, now)...)
	}
	t.gate.tell(alerts...)
	return again
}

// failedLimited is for who waits for a limit's end: what couldn't count isn't charged. A guess of a code
// always could, for a right one is let on.
func (t *Trial) failedLimited(f Failure, now time.Time) (again bool) {
	g := t.gate
	t.leave(now)
	if !t.held {
		g.tell(g.noteWrongPassword(f.Password, t.account, now)...)
	}
	if !f.Code {
		return false
	}
	g.accounts.with(t.kindKey, now, func(e *accountEntry, _ *flying) {
		if again = e.seen.again(t.sight, now); !again {
			e.codes.take(now, g.limits.codes(), 1)
		}
	})
	if !again && !t.trusted {
		g.sites.with(t.siteKey, now, func(e *siteEntry, _ *flying) { e.charge(&g.limits, now) })
	}
	t.tarpit(again, now)
	return again
}

func (t *Trial) failedAtHome(now time.Time) (again bool) {
	t.gate.familiar.with(t.kindKey, now, func(e *familiarEntry, _ *flying) {
		again = e.seen.again(t.sight, now)
		if door := t.doorIn(e); door != nil && t.doored {
			door.flying.leave()
			if !again && !t.app { // 130 bits can't be guessed: that is no danger to the owner
				door.charge(now)
			}
		}
	})
	t.doored = false
	return again
}

func (t *Trial) failedAbroad(f Failure, now time.Time) (again bool, alerts []Alert) {
	g := t.gate
	network := g.prefixKey(t.source.Network())
	besieged, siege := false, siegeFacts{}
	g.accounts.with(t.kindKey, now, func(e *accountEntry, fl *flying) {
		if t.weighed {
			fl.leave()
		}
		if again = e.seen.again(t.sight, now); again || t.app {
			e.last = max(e.last, secondsOf(now))
			return
		}
		if f.Code {
			e.codes.take(now, g.limits.codes(), 1)
		}
		e.charge(now, &g.limits)
		siege = e.note(uint32(network), true, now)
		besieged = judgeSiege(siege, &g.limits) && e.besiege(now)
	})
	if besieged {
		alerts = append(alerts, Alert{Signal: AccountNetworks, Account: t.account, Source: t.source.Addr, Detail: fmt.Sprintf("%d networks that are new to it failed %d times on this account within a day: for an hour its password alone isn't enough from such", siege.networks, siege.failures)})
	}
	t.leaveStrangers(!again, now)
	t.land(now)
	if again {
		return true, nil
	}
	t.chargeSource(now)
	if t.trusted {
		return false, alerts
	}
	unknown := f.Unknown && !g.isAnybodys(t.account)
	signal := ""
	g.networks.with(network, now, func(e *networkEntry, _ *flying) {
		e.note(uint32(t.kindKey), unknown, now)
		signal = judgeNetwork(e.facts(now), &g.limits)
	})
	if signal != "" {
		alerts = append(alerts, t.ban(t.source.Network(), signal, now)...)
	}
	return false, alerts
}

// land ends what counts the attempt as in flight for its site.
func (t *Trial) land(now time.Time) {
	if t.sited {
		t.gate.sites.with(t.siteKey, now, func(_ *siteEntry, fl *flying) { fl.leave() })
	}
	for i, r := range t.ranges()[:t.ranged] {
		t.gate.ranges[i].with(t.gate.prefixKey(r.prefix), now, func(_ *rangeEntry, fl *flying) { fl.leave() })
	}
	t.sited, t.ranged = false, 0
}

// leaveStrangers ends what counts it as in flight among strangers with a password alone.
func (t *Trial) leaveStrangers(failed bool, now time.Time) {
	if t.alone {
		t.gate.machine.leaveStranger(t.close, failed, t.gate.familiar.len(), now, &t.gate.limits)
		t.alone = false
	}
}

// chargeSource charges the failure to the site and the ranges around it.
func (t *Trial) chargeSource(now time.Time) {
	if t.trusted {
		return
	}
	g := t.gate
	g.sites.with(t.siteKey, now, func(e *siteEntry, _ *flying) { e.charge(&g.limits, now) })
	for i, r := range t.ranges() {
		g.ranges[i].with(g.prefixKey(r.prefix), now, func(e *rangeEntry, _ *flying) { e.charge(&g.limits, r.factor, now) })
	}
}

// tarpit finds out how long the refusal takes, and where that is longer than others' keeps the
// source from trying anything else meanwhile.
func (t *Trial) tarpit(again bool, now time.Time) {
	g := t.gate
	if t.familiar && !t.neighbour || t.trusted || g.limits.observes(TarpitBusy) {
		return
	}
	alarmed := g.Alarmed()
	g.sites.with(t.siteKey, now, func(e *siteEntry, _ *flying) {
		t.lasts = g.limits.lasts(e.inARow(now), alarmed)
		if t.lasts <= g.limits.Tarpit[0] || e.kept {
			return
		}
		if !g.tarpit.enter(g.limits.TarpitPlaces) {
			t.lasts = g.limits.Tarpit[0]
			return
		}
		e.kept = true
		t.kept.Store(true)
	})
}

// Tarpit is how long the refusal of a failed attempt lasts at least.
func (t *Trial) Tarpit() time.Duration {
	if t == nil {
		return 0
	}
	return t.lasts
}

// ban bans a network, unless that is only observed.
func (t *Trial) ban(network netip.Prefix, signal string, now time.Time) []Alert {
	g := t.gate
	if g.limits.observes(signal) {
		return []Alert{{Signal: signal, Source: t.source.Addr, Network: network, Detail: "it would be banned: " + t.reason(signal)}}
	}
	ban, ok := g.bans.add(network, signal, t.reason(signal), now, &g.limits)
	if !ok {
		return nil
	}
	g.pending.ban(ban)
	return []Alert{{
		Signal: signal, Source: t.source.Addr, Network: ban.Network,
		Detail: fmt.Sprintf("banned until %s: %s", ban.Until.UTC().Format(time.RFC3339), ban.Detail),
	}}
}

func (t *Trial) reason(signal string) string {
	switch signal {
	case NetworkAccounts:
		return "many accounts failed from there within half an hour"
	case NetworkUnknown:
		return "accounts that nobody knows were tried from there"
	}
	return "an account that nobody has was tried from there"
}

// touchDecoy bans who tries an account that nobody has.
func (t *Trial) touchDecoy(now time.Time) []Alert {
	if !t.trusted {
		if alerts := t.ban(t.source.Site(), DecoyAccount, now); alerts != nil {
			alerts[0].Account = t.account
			return alerts
		}
	}
	return []Alert{{Signal: DecoyAccount, Account: t.account, Source: t.source.Addr, Detail: "an account that nobody has was tried"}}
}

// Repeated says whether the very same secret was wrong for the account from that site before, and
// is still remembered.
func (t *Trial) Repeated() (is bool) {
	if t.familiar {
		t.gate.familiar.look(t.kindKey, func(e *familiarEntry, _ *flying) { is = e.seen.index(t.sight) >= 0 })
		return is
	}
	t.gate.accounts.look(t.kindKey, func(e *accountEntry, _ *flying) { is = e.seen.index(t.sight) >= 0 })
	return is
}

// Succeeded says that the account has signed in with that password, second factor included: its
// network is familiar from now on, for this kind of secret. A success clears no
// failure, or else an owner's mail program would hand a guesser new tries all day. The
// password is nil where it is no use to us, as with app passwords.
func (t *Trial) Succeeded(password []byte) {
	if t.ended.Swap(true) {
		return
	}
	g, now := t.gate, t.gate.now()
	t.leave(now)
	t.acquaint(now)
	g.machine.count(false, now, g.alarmShare())
	if !t.trusted {
		for _, key := range []uint64{t.siteKey, ^t.siteKey} { // whatever they bring, they are people behind that address
			g.sites.with(key, now, func(e *siteEntry, _ *flying) { e.row = 0; e.signed.mark(t.kindKey, now) })
		}
		for i, r := range t.source.ranges() {
			g.ranges[i].with(g.prefixKey(r.prefix), now, func(e *rangeEntry, _ *flying) { e.signed.mark(t.kindKey, now) })
		}
	}
	g.tell(t.right(password, now)...)
}

// right remembers a right password, and says what is bad about it.
func (t *Trial) right(password []byte, now time.Time) []Alert {
	first, alerts := t.gate.noteRightPassword(password, t.account, now)
	for i := range alerts {
		alerts[i].Source = t.source.Addr
	}
	if first && t.gate.Common != nil && t.gate.Common.Has(password) {
		alerts = append(alerts, Alert{Signal: PasswordCommon, Account: t.account, Source: t.source.Addr, Right: true, Detail: "the account's password is on the list of common ones: have it changed"})
	}
	return alerts
}

// Acquaint makes the address's network familiar for the account and the kind of
// secret, as a success does, for callers that know of one from before this Gate began.
func (g *Gate) Acquaint(at Attempt) {
	g.start()
	now := g.now()
	g.trial(at, now).acquaint(now)
}

func (t *Trial) acquaint(now time.Time) {
	g, first := t.gate, false
	g.familiar.with(t.kindKey, now, func(e *familiarEntry, _ *flying) { first = e.add(t.source, now) })
	g.networks.with(g.prefixKey(t.source.Network()), now, func(e *networkEntry, _ *flying) { e.welcome(t.kindKey, now) })
	if first && t.source.Addr.IsValid() {
		g.pending.home(Home{Account: t.account, AppPassword: t.app, Site: t.source.Site(), Last: now})
	}
}

// Release ends what still waits for the trial. Where nothing else has ended that, it says that nobody
// could tell, as when the upstream is away, and charges nothing. On nil it does nothing.
func (t *Trial) Release() {
	if t == nil {
		return
	}
	now := t.gate.now()
	if !t.ended.Swap(true) {
		t.leave(now)
	}
	if t.kept.Swap(false) {
		t.gate.tarpit.leave()
		t.gate.sites.with(t.siteKey, now, func(e *siteEntry, fl *flying) { e.kept = false; fl.wake() })
	}
}

// doorIn returns the door by which the attempt came, nil where its home is forgotten.
func (t *Trial) doorIn(e *familiarEntry) *door {
	if h := e.home(t.source.Network(), t.gate.now()); h != nil {
		return h.door(t.door)
	}
	return nil
}

// leave ends what counts the attempt as in flight.
func (t *Trial) leave(now time.Time) {
	g := t.gate
	if t.familiar {
		if t.doored {
			g.familiar.with(t.kindKey, now, func(e *familiarEntry, _ *flying) {
				if door := t.doorIn(e); door != nil {
					door.flying.leave()
				}
			})
		}
		return
	}
	t.leaveStrangers(false, now)
	if t.weighed {
		g.accounts.with(t.kindKey, now, func(_ *accountEntry, fl *flying) { fl.leave() })
	}
	t.land(now)
}

package policy

import (
	"context"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// The sizes of the tables: so many keys are remembered.
const (
	maxSites     = 1_000_000
	maxRanges    = 250_000 // of each of the two lengths
	maxNetworks  = 250_000
	maxAccounts  = 1_000_000
	maxFamiliars = 1_000_000
	maxPasswords = 250_000
)

// A Gate decides what may happen and remembers what did. Its zero value is ready,
// with the default limits. Set its fields before the first call.
type Gate struct {
	Limits       Limits
	Common       Common           // the list of common passwords; nil: there is none
	CommonAction CommonAction     // what goes for attempts with one of them
	Now          func() time.Time // nil: time.Now
	Alert        func(Alert)      // told what somebody should know at once; nil: nobody is

	once   sync.Once
	limits Limits // with defaults
	seed   maphash.Seed
	keys   secretKeys

	sites     *table[siteEntry, *siteEntry]
	ranges    [2]*table[rangeEntry, *rangeEntry] // the narrow ones, the wide ones
	networks  *table[networkEntry, *networkEntry]
	accounts  *table[accountEntry, *accountEntry]
	familiar  *table[familiarEntry, *familiarEntry]
	passwords *table[passwordEntry, *passwordEntry]
	bans      bans
	machine   machine
	tarpit    tarpit
	slots     slots

	memory  Memory     // nil: a restart forgets
	storing sync.Mutex // so that what is done by hand isn't overtaken by what was on its way
	pending pending
}

func (g *Gate) start() {
	g.once.Do(func() {
		g.limits = g.Limits.withDefaults()
		g.seed = maphash.MakeSeed()
		g.sites = newTable[siteEntry](maxSites, maxSites/2)
		for i := range g.ranges {
			g.ranges[i] = newTable[rangeEntry](maxRanges, maxRanges/2)
		}
		g.networks = newTable[networkEntry](maxNetworks, maxNetworks/2)
		g.accounts = newTable[accountEntry](maxAccounts, maxAccounts/2)
		g.familiar = newTable[familiarEntry](maxFamiliars, maxFamiliars/2)
		g.passwords = newTable[passwordEntry](maxPasswords, maxPasswords/2)
		for hour := range g.machine.norms {
			g.machine.norms[hour] = -1
		}
		g.slots.sites = make(map[netip.Prefix]int)
		g.slots.networks = make(map[netip.Prefix]int)
		g.slots.accounts = make(map[string]int)
		g.slots.pairs = make(map[pair]int)
		g.pending.init()
	})
}

func (g *Gate) now() time.Time {
	if g.Now != nil {
		return g.Now()
	}
	return time.Now()
}

// What tables are keyed with: hashes that nobody outside can compute, so that nobody can choose
// names or addresses that meet.
func (g *Gate) prefixKey(p netip.Prefix) uint64 { return maphash.Comparable(g.seed, p) }

func (g *Gate) accountKey(account string) uint64 {
	return maphash.String(g.seed, account)
}

// accountKindKey is the key of an account with one kind of secret. What app passwords teach us is
// apart from what passwords do: or else the thief of a phone would guess the main
// password with the budget of its owner, or use up that of the phone.
func (g *Gate) accountKindKey(account string, appPassword bool) uint64 {
	key := g.accountKey(account)
	if appPassword {
		return ^key
	}
	return key
}

// Begin decides whether an attempt may be judged now. Until its trial ends it counts
// as if it failed: forty attempts at once can't pass a limit of ten. The trial
// is nil when the attempt is refused.
func (g *Gate) Begin(at Attempt) (Decision, *Trial) {
	d, t, _ := g.begin(at)
	return d, t
}

// Await is Begin for callers that can wait: where only attempts in flight stand in
// the way, as when an office's mail programs come back all at once, it waits
// until one of them ends. It returns Begin's refusal when ctx ends first.
func (g *Gate) Await(ctx context.Context, at Attempt) (Decision, *Trial) {
	for {
		d, t, settled := g.begin(at)
		if !wait(ctx, settled) {
			return d, t
		}
	}
}

// wait waits until an attempt in flight has ended, and says false when there is none to wait
// for, or ctx has ended.
func wait(ctx context.Context, settled <-chan struct{}) bool {
	if settled == nil {
		return false
	}
	select {
	case <-settled:
		return true
	case <-ctx.Done():
		return false
	}
}

// begin gathers the facts, judges, and counts an allowed attempt as in flight.
// Where only attempts in flight refuse it, settled is closed when one of them ends.
func (g *Gate) begin(at Attempt) (d Decision, t *Trial, settled <-chan struct{}) {
	g.start()
	now := g.now()
	t = g.trial(at, now)
	if !g.limits.isDecoy(at.Account) {
		return g.place(t, at, now)
	}
	decoy := g.limits.first(Decision{Signal: DecoyAccount})
	if !decoy.Allowed {
		g.tell(t.touchDecoy(now)...)
		return decoy, nil, nil
	}
	if d, t, settled = g.place(t, at, now); settled == nil { // else it comes again
		g.tell(Alert{Signal: DecoyAccount, Account: at.Account, Source: at.Addr, Detail: "an account that nobody has was tried"})
	}
	return decoy.with(d), t, settled
}

// place finds a place for the attempt in the counts.
func (g *Gate) place(t *Trial, at Attempt, now time.Time) (d Decision, _ *Trial, settled <-chan struct{}) {
	f := g.sourceFacts(t, now)

	// Each step judges what is known so far, and counts under the same lock, or
	// else two attempts could take the last place. No two locks are held at once.
	g.familiar.with(t.kindKey, now, func(e *familiarEntry, _ *flying) {
		if h := e.home(t.source.Network(), now); h != nil {
			if t.trusted {
				f.familiar, d = true, Decision{Allowed: true}
				return
			}
			door := h.open(t.source.Site())
			t.door = door.site
			f.familiar, f.home = true, door.facts(now, &g.limits)
			if d = judge(f); f.strangersAtHome(t.door, d) || !t.door.IsValid() && g.isSpent(t, now) {
				f.familiar, f.home = false, homeFacts{}
				return
			}
			settled = door.flying.enter(d)
			t.doored, t.neighbour = d.Allowed, !t.door.IsValid()
		}
	})
	if t.familiar = f.familiar; t.familiar {
		return g.demand(d, t, at, now, settled)
	}
	if t.trusted {
		return g.demand(judge(f), t, at, now, nil)
	}
	g.rangeFacts(t, now, &f)
	g.sites.with(t.siteKey, now, func(e *siteEntry, fl *flying) {
		f.siteFacts(e, fl, now)
		d = judge(f)
		settled = fl.enter(d)
		t.sited = d.Allowed
	})
	if d.Allowed {
		d, settled = g.enterRanges(t, d, now)
	}
	return g.demand(d, t, at, now, settled)
}

// enterRanges counts the attempt as in flight in the ranges around its site as well, or else as many
// as there are sites could pass their limits together.
func (g *Gate) enterRanges(t *Trial, d Decision, now time.Time) (Decision, <-chan struct{}) {
	var settled <-chan struct{}
	for _, r := range t.ranges() {
		g.ranges[t.ranged].with(g.prefixKey(r.prefix), now, func(e *rangeEntry, fl *flying) {
			facts := e.spent.facts(g.limits.allowance(r.factor, e.signed.count(now)), fl.count, now)
			d = d.with(g.limits.first(judgeAddress(facts, RangeLimit)))
			settled = fl.enter(d)
		})
		if !d.Allowed {
			t.land(now)
			return d, settled
		}
		t.ranged++
	}
	return d, nil
}

// isSpent says whether the site has failed so often that it is no neighbour any more, though it is in a
// network where the account is at home. It looks with the lock of the account's homes held, and takes that
// of a site: nothing takes them the other way round.
func (g *Gate) isSpent(t *Trial, now time.Time) (is bool) {
	g.sites.look(t.siteKey, func(e *siteEntry, _ *flying) {
		is = e.spent.facts(g.limits.allowance(rangeFactor, e.signed.count(now)), 0, now).left() < 1
	})
	return is && !g.limits.observes(AddressLimit)
}

func (g *Gate) sourceFacts(t *Trial, now time.Time) facts {
	f := facts{limits: &g.limits, trusted: t.trusted}
	if !t.trusted {
		f.ban = g.banFacts(t.source.Addr, now)
	}
	return f
}

func (f *facts) siteFacts(e *siteEntry, fl *flying, now time.Time) {
	f.site = e.spent.facts(f.limits.allowance(1, e.signed.count(now)), fl.count, now)
	f.tarpit = tarpitFacts{row: e.inARow(now), busy: e.kept || fl.count > 0}
}

func (g *Gate) rangeFacts(t *Trial, now time.Time, f *facts) {
	f.app = t.app
	for i, r := range t.ranges() {
		g.ranges[i].look(g.prefixKey(r.prefix), func(e *rangeEntry, _ *flying) {
			facts := e.spent.facts(g.limits.allowance(r.factor, e.signed.count(now)), 0, now)
			if i == 0 {
				f.narrow = facts
			} else {
				f.far = facts
			}
		})
	}
}

// strangersAtHome says whether neighbours have used up what all sites of a home share that the
// account never signed in from: whoever comes from one then is as good as from elsewhere.
func (f facts) strangersAtHome(door netip.Prefix, d Decision) bool {
	return !door.IsValid() && (!d.Allowed && !d.busy && d.Signal != Banned || d.Observed != "")
}

// demand completes what was decided: an attempt that is refused has no trial, and one that is allowed
// may have to bring more than the settings ask for.
func (g *Gate) demand(d Decision, t *Trial, at Attempt, now time.Time, settled <-chan struct{}) (Decision, *Trial, <-chan struct{}) {
	if !d.Allowed {
		return d, nil, settled
	}
	if at.AppPassword {
		return d, t, nil
	}
	f := g.demandFacts(t, at, now)
	t.repeated = f.repeated
	if d = d.with(judgeDemand(f)); !d.Allowed {
		t.Release()
		return d, nil, nil
	}
	return d, t, nil
}

// Knows says whether the address's network is familiar for the account and the kind
// of secret.
func (g *Gate) Knows(at Attempt) (known bool) {
	g.start()
	g.familiar.look(g.accountKindKey(at.Account, at.AppPassword), func(e *familiarEntry, _ *flying) {
		known = e.home(SourceOf(at.Addr).Network(), g.now()) != nil
	})
	return known
}

// closeness finds out how close the source is to where accounts are at home.
func (g *Gate) closeness(t *Trial, now time.Time) (c closeness) {
	if g.resides(t.source, now) {
		c = inhabited
	}
	far := t.source.ranges()[1].prefix
	g.familiar.look(t.kindKey, func(e *familiarEntry, _ *flying) {
		switch {
		case e.home(t.source.Network(), now) != nil:
			c = crowded
		case e.isNear(far, now):
			c = near
		}
	})
	return c
}

// resides says whether some account is at home in the source's network.
func (g *Gate) resides(source Source, now time.Time) (is bool) {
	g.networks.look(g.prefixKey(source.Network()), func(e *networkEntry, _ *flying) { is = e.resides(now) })
	return is
}

// isAnybodys says whether the account has ever signed in, as far as is remembered.
func (g *Gate) isAnybodys(account string) (is bool) {
	for _, appPassword := range []bool{false, true} {
		g.familiar.look(g.accountKindKey(account, appPassword), func(e *familiarEntry, _ *flying) {
			is = is || len(e.homes) > 0
		})
	}
	return is
}

// tell passes alerts on. No lock is held.
func (g *Gate) tell(alerts ...Alert) {
	if g.Alert == nil {
		return
	}
	for _, a := range alerts {
		if g.limits.observes(a.Signal) {
			a.Detail += " (only observed: nothing is done about it)"
		}
		g.Alert(a)
	}
}

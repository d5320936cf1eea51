package policy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
)

const (
	maxBans     = 100_000        // networks remembered, those whose ban is over included
	byHandRoom  = 10_000         // of them, that no signal's ban takes
	decoyRoom   = 40_000         // what bans of decoys may take: whoever has many networks can make as many as he likes
	mostDecoys  = 8              // in one IPv6 /48: so many become one of it
	banMemory   = 24 * time.Hour // a network that was banned within that time is banned for twice as long
	clockJitter = time.Minute    // a time that is farther ahead is from when the clock was wrong
)

// bans are apart from all counts, so that no flood of new keys can push one out.
type bans struct {
	latest atomic.Int64 // the newest time at which something changed, in nanoseconds since 1970

	mu      sync.RWMutex
	full    time.Time                 // until then all places are taken by bans in force
	known   map[netip.Prefix]Ban      // those that are over included, while they make the next one longer
	signals map[string]int            // how many of them each has made
	inForce [2]bart.Table[Ban]        // some may be over; by hand, and the others
	stale   map[netip.Prefix]struct{} // what is known of them isn't what the store says
}

// find returns the ban in force that holds the address: one by hand where there is one, and of
// several the narrowest.
func (b *bans) find(addr netip.Addr, now time.Time) (Ban, bool) {
	if b.isAhead(now) {
		b.mu.Lock()
		b.turn(now)
		b.mu.Unlock()
	}
	for i := range b.inForce {
		if ban, ok := b.narrowest(&b.inForce[i], addr, now); ok {
			return ban, true
		}
	}
	return Ban{}, false
}

func (b *bans) narrowest(inForce *bart.Table[Ban], addr netip.Addr, now time.Time) (Ban, bool) {
	b.mu.RLock()
	ban, ok := inForce.Lookup(addr)
	b.mu.RUnlock()
	if !ok || now.Before(ban.Until) {
		return ban, ok
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn(now)
	for {
		ban, ok = inForce.Lookup(addr)
		if !ok || now.Before(ban.Until) {
			return ban, ok
		}
		inForce.Delete(ban.Network)
	}
}

// isAhead says whether the clock was set back since something changed.
func (b *bans) isAhead(now time.Time) bool {
	return b.latest.Load()-now.UnixNano() > int64(clockJitter)
}

// turn notes the time of a change. Where the clock was set back, bans that were made in a time to come
// begin now, and those that were over only then are in force again.
func (b *bans) turn(now time.Time) {
	if b.isAhead(now) {
		b.full = time.Time{}
		for network, ban := range b.known {
			if begun, ahead := ban.begun(now); ahead {
				ban = begun
				b.known[network] = ban
				b.outdate(network)
			}
			b.table(ban.Signal).Insert(network, ban)
		}
	} else if now.UnixNano() < b.latest.Load() {
		return
	}
	b.latest.Store(now.UnixNano())
}

// begun returns a ban that was made while the clock was ahead as one that begins now and lasts as long,
// and says whether it is one.
func (b Ban) begun(now time.Time) (_ Ban, ahead bool) {
	if b.Since.Sub(now) <= clockJitter {
		return b, false
	}
	b.Since, b.Until = now, now.Add(b.Until.Sub(b.Since))
	return b, true
}

// table is where a ban stands that was made by the signal.
func (b *bans) table(signal string) *bart.Table[Ban] {
	if signal == ByHand {
		return &b.inForce[0]
	}
	return &b.inForce[1]
}

// add bans a network for a signal, for twice as long as the last time. It returns false where
// it is banned already, and where there is no room left: whoever is banned stays so. Where decoys
// have had many banned around it, the ban is of their network, in place of theirs.
func (b *bans) add(network netip.Prefix, signal, detail string, now time.Time, l *Limits) (Ban, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn(now)
	var within []Ban
	if signal == DecoyAccount && network.Addr().Is6() {
		around := SourceOf(network.Addr()).Network()
		if now.Before(b.known[around].Until) {
			return Ban{}, false
		}
		if within = b.decoys(around, network, now); len(within) >= mostDecoys-1 {
			network, detail = around, "accounts that nobody has were tried from many addresses in it"
		} else {
			within = nil
		}
	}
	last, known := b.known[network]
	if known && now.Before(last.Until) || !known && len(within) == 0 && !b.roomy(signal, now) {
		return Ban{}, false
	}
	ban := Ban{Network: network, Signal: signal, Since: now, Until: now.Add(l.Ban), Times: 1, Detail: detail}
	if known && last.Signal != ByHand && now.Sub(last.Until) < banMemory {
		ban.Times = last.Times + 1
		ban.Until = now.Add(longer(l.Ban, last.Times, l.LongestBan))
	}
	for _, one := range within {
		if ban.Until.Before(one.Until) {
			ban.Until = one.Until
		}
		b.drop(one.Network)
	}
	b.put(ban)
	return ban, true
}

// decoys returns the bans in force that decoys have made in the network, but for that of the site.
func (b *bans) decoys(network, site netip.Prefix, now time.Time) (list []Ban) {
	for within, ban := range b.table(DecoyAccount).Subnets(network) {
		if ban.Signal == DecoyAccount && within != site && now.Before(ban.Until) {
			list = append(list, ban)
		}
	}
	return list
}

// longer doubles d so many times, up to most.
func longer(d time.Duration, times int, most time.Duration) time.Duration {
	for ; times > 0 && d < most; times-- {
		d *= 2
	}
	return min(d, most)
}

func (b *bans) put(ban Ban) {
	if b.known == nil {
		b.known = make(map[netip.Prefix]Ban)
		b.signals = make(map[string]int)
	}
	b.forget(ban.Network)
	b.known[ban.Network] = ban
	b.signals[ban.Signal]++
	b.table(ban.Signal).Insert(ban.Network, ban)
}

// roomy says whether there is room for one more by the signal, and makes it if what is over can go.
func (b *bans) roomy(signal string, now time.Time) bool {
	if b.hasRoom(signal) {
		return true
	}
	if now.Before(b.full) {
		return false
	}
	b.full = now.Add(time.Hour)
	for network, ban := range b.known {
		switch {
		case !now.Before(ban.Until):
			b.drop(network)
		case ban.Until.Before(b.full):
			b.full = ban.Until
		}
	}
	return b.hasRoom(signal)
}

func (b *bans) hasRoom(signal string) bool {
	switch {
	case signal == ByHand:
		return len(b.known) < maxBans
	case signal == DecoyAccount && b.signals[signal] >= decoyRoom:
		return false
	}
	return len(b.known)-b.signals[ByHand] < maxBans-byHandRoom && len(b.known) < maxBans
}

func (b *bans) remove(network netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(network)
}

func (b *bans) forget(network netip.Prefix) {
	if ban, known := b.known[network]; known {
		b.table(ban.Signal).Delete(network)
		b.signals[ban.Signal]--
		delete(b.known, network)
	}
}

// drop forgets a ban that the store is to forget, too.
func (b *bans) drop(network netip.Prefix) {
	b.forget(network)
	b.outdate(network)
}

// outdate has the store learn what is known of a network. Where too many wait for that already, what is
// over goes from the store when it is purged.
func (b *bans) outdate(network netip.Prefix) {
	if b.stale == nil {
		b.stale = make(map[netip.Prefix]struct{})
	}
	if len(b.stale) < maxBans {
		b.stale[network] = struct{}{}
	}
}

// takeStale returns what the store has to learn, of so many networks at most: the bans that are others
// now, and the networks that have none.
func (b *bans) takeStale(most int) (changed []Ban, gone []netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for network := range b.stale {
		if len(changed)+len(gone) == most {
			break
		}
		if ban, known := b.known[network]; known {
			changed = append(changed, ban)
		} else {
			gone = append(gone, network)
		}
		delete(b.stale, network)
	}
	return changed, gone
}

// putBackStale has the store learn it later.
func (b *bans) putBackStale(changed []Ban, gone []netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ban := range changed {
		b.outdate(ban.Network)
	}
	for _, network := range gone {
		b.outdate(network)
	}
}

// load takes in what a store has kept: those by hand first, then those that last longest. What there
// is no room for the store is to forget, or else it would grow and grow.
func (b *bans) load(list []Ban, now time.Time) {
	slices.SortStableFunc(list, func(a, b Ban) int {
		if byHand := a.Signal == ByHand; byHand != (b.Signal == ByHand) {
			if byHand {
				return -1
			}
			return 1
		}
		return b.Until.Compare(a.Until)
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn(now)
	for _, ban := range list {
		ban, ahead := ban.begun(now)
		if !b.hasRoom(ban.Signal) {
			b.outdate(ban.Network)
			continue
		}
		b.put(ban) // also where it is over: the clock may be ahead
		if ahead {
			b.outdate(ban.Network)
		}
	}
}

// list returns the bans in force, by network.
func (b *bans) list(now time.Time) (list []Ban) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn(now)
	for _, ban := range b.known {
		if now.Before(ban.Until) {
			list = append(list, ban)
		}
	}
	sortBans(list)
	return list
}

func sortBans(list []Ban) {
	slices.SortFunc(list, func(a, b Ban) int { return a.Network.Compare(b.Network) })
}

// Bans returns the bans in force, by network.
func (g *Gate) Bans(context.Context) ([]Ban, error) {
	g.start()
	return g.bans.list(g.now()), nil
}

// Ban bans a network, in place of the ban that it may have, durably once it returns nil. Make
// the ban with [NewBan].
func (g *Gate) Ban(ctx context.Context, ban Ban) error {
	g.start()
	g.storing.Lock()
	defer g.storing.Unlock()
	now := g.now()
	g.bans.mu.Lock()
	g.bans.turn(now)
	_, known := g.bans.known[ban.Network]
	full := !known && !g.bans.roomy(ByHand, now)
	if !full {
		g.bans.put(ban)
	}
	g.bans.mu.Unlock()
	g.pending.forget(ban.Network)
	if full {
		return fmt.Errorf("policy: banning %s: %d networks are banned, and there is no room for more", ban.Network, maxBans)
	}
	if g.memory == nil {
		return nil
	}
	if err := g.memory.PutBans(ctx, ban); err != nil {
		return fmt.Errorf("policy: banning %s: it is until the next restart, for it couldn't be stored: %w", ban.Network, err)
	}
	return nil
}

// Unban ends the ban of a network, and forgets that there was one. It says whether
// there was one in force. Durable once it returns nil.
func (g *Gate) Unban(ctx context.Context, network netip.Prefix) (known bool, err error) {
	g.start()
	g.storing.Lock()
	defer g.storing.Unlock()
	now := g.now()
	g.bans.mu.Lock()
	g.bans.turn(now)
	ban, ok := g.bans.known[network]
	g.bans.mu.Unlock()
	if known = ok && now.Before(ban.Until); !known {
		return false, nil
	}
	g.pending.forget(network)
	if g.memory != nil {
		if err := g.memory.RemoveBans(ctx, network); err != nil {
			return true, fmt.Errorf("policy: ending the ban of %s: %w", network, err)
		}
	}
	g.bans.remove(network)
	// What led to it is forgiven: or else the next failure there would ban it again.
	g.networks.with(g.prefixKey(network), g.now(), func(e *networkEntry, _ *flying) { e.failing = nil })
	return true, nil
}

// banFacts is what a decision needs to know of bans.
type banFacts struct {
	wait   time.Duration // until the ban that holds the address ends; 0: there is none
	byHand bool
}

func (g *Gate) banFacts(addr netip.Addr, now time.Time) banFacts {
	ban, ok := g.bans.find(addr, now)
	if !ok {
		return banFacts{}
	}
	return banFacts{wait: ban.Until.Sub(now), byHand: ban.Signal == ByHand}
}

// judgeBan refuses who is banned. What strangers have brought about doesn't concern accounts that
// are at home there; what an administrator has written down does.
func judgeBan(f banFacts, familiar bool) Decision {
	if f.wait > 0 && (!familiar || f.byHand) {
		return refuse(Banned, f.wait)
	}
	return Decision{Allowed: true}
}

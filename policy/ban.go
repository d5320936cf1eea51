package policy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/gaissmai/bart"
)

const (
	maxBans   = 100_000        // networks remembered, those whose ban is over included
	banMemory = 24 * time.Hour // a network that was banned within that time is banned for twice as long
)

// bans are apart from all counts, so that no flood of new keys can push one out.
type bans struct {
	mu      sync.RWMutex
	full    time.Time            // until then all places are taken by bans in force
	known   map[netip.Prefix]Ban // those that are over included, while they make the next one longer
	inForce [2]bart.Table[Ban]   // some may be over; by hand, and the others
}

// find returns the ban in force that holds the address: one by hand where there is one, and of
// several the narrowest.
func (b *bans) find(addr netip.Addr, now time.Time) (Ban, bool) {
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
	for {
		ban, ok = inForce.Lookup(addr)
		if !ok || now.Before(ban.Until) {
			return ban, ok
		}
		inForce.Delete(ban.Network)
	}
}

// table is where a ban stands that was made by the signal.
func (b *bans) table(signal string) *bart.Table[Ban] {
	if signal == ByHand {
		return &b.inForce[0]
	}
	return &b.inForce[1]
}

// add bans a network for a signal, for twice as long as the last time. It returns false where
// it is banned already, and where there is no room left: whoever is banned stays so.
func (b *bans) add(network netip.Prefix, signal, detail string, now time.Time, l *Limits) (Ban, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last, known := b.known[network]
	if known && now.Before(last.Until) || !known && !b.roomy(now) {
		return Ban{}, false
	}
	ban := Ban{Network: network, Signal: signal, Since: now, Until: now.Add(l.Ban), Times: 1, Detail: detail}
	if known && last.Signal != ByHand && now.Sub(last.Until) < banMemory {
		ban.Times = last.Times + 1
		ban.Until = now.Add(longer(l.Ban, last.Times, l.LongestBan))
	}
	b.put(ban)
	return ban, true
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
	}
	b.forget(ban.Network)
	b.known[ban.Network] = ban
	b.table(ban.Signal).Insert(ban.Network, ban)
}

// roomy says whether there is room for one more, and makes it if what is over can go.
func (b *bans) roomy(now time.Time) bool {
	if len(b.known) < maxBans {
		return true
	}
	if now.Before(b.full) {
		return false
	}
	b.full = now.Add(time.Hour)
	for network, ban := range b.known {
		switch {
		case !now.Before(ban.Until):
			b.forget(network)
		case ban.Until.Before(b.full):
			b.full = ban.Until
		}
	}
	return len(b.known) < maxBans
}

func (b *bans) remove(network netip.Prefix) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(network)
}

func (b *bans) forget(network netip.Prefix) {
	if ban, known := b.known[network]; known {
		b.table(ban.Signal).Delete(network)
		delete(b.known, network)
	}
}

// list returns the bans in force, by network.
func (b *bans) list(now time.Time) (list []Ban) {
	b.mu.RLock()
	defer b.mu.RUnlock()
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
	g.bans.mu.Lock()
	_, known := g.bans.known[ban.Network]
	full := !known && !g.bans.roomy(g.now())
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
	g.bans.mu.RLock()
	ban, ok := g.bans.known[network]
	g.bans.mu.RUnlock()
	if known = ok && g.now().Before(ban.Until); !known {
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

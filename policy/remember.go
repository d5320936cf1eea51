package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

const (
	rememberEvery = 5 * time.Second
	lastRemember  = 5 * time.Second
	purgeEvery    = time.Hour
	maxLoaded     = 500_000 // homes that are known again after a restart: the newest
	maxPending    = 50_000  // homes that wait to be stored; more are stored when the account signs in the next day
	maxStored     = 2_000   // homes in one transaction
	normsMark     = "policy-norms"
)

// pending is what waits to be stored. Homes are few, one for each account, place and day, and
// strangers make none; bans are bounded as they are in memory.
type pending struct {
	mu    sync.Mutex
	homes map[homeKey]Home
	bans  map[netip.Prefix]Ban
	wake  chan struct{} // a ban waits: it must survive us
}

type homeKey struct {
	account string
	app     bool
	site    netip.Prefix
}

func (p *pending) init() {
	p.homes = make(map[homeKey]Home)
	p.bans = make(map[netip.Prefix]Ban)
	p.wake = make(chan struct{}, 1)
}

func (p *pending) home(h Home) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.homes) < maxPending {
		p.homes[homeKey{h.Account, h.AppPassword, h.Site}] = h
	}
}

func (p *pending) ban(b Ban) {
	p.mu.Lock()
	p.bans[b.Network] = b
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// forget has a network's ban wait no longer: what an administrator does goes by it.
func (p *pending) forget(network netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.bans, network)
}

// take returns all that waits.
func (p *pending) take() (homes []Home, bans []Ban) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.homes {
		homes = append(homes, h)
	}
	for _, b := range p.bans {
		bans = append(bans, b)
	}
	clear(p.homes)
	clear(p.bans)
	return homes, bans
}

// putBack has what couldn't be stored wait again, unless something newer does.
func (p *pending) putBack(homes []Home, bans []Ban) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range homes {
		if key := (homeKey{h.Account, h.AppPassword, h.Site}); len(p.homes) < maxPending {
			if _, newer := p.homes[key]; !newer {
				p.homes[key] = h
			}
		}
	}
	for _, b := range bans {
		if _, newer := p.bans[b.Network]; !newer {
			p.bans[b.Network] = b
		}
	}
}

// Load reads what a Gate before this one remembered: bans, homes, and what is usual at which hour. It is
// called once, before the first attempt; from then on, [Gate.Run] has the memory know more.
func (g *Gate) Load(ctx context.Context, m Memory) error {
	g.start()
	g.memory = m
	bans, err := m.Bans(ctx)
	if err != nil {
		return fmt.Errorf("policy: reading bans: %w", err)
	}
	now := g.now()
	g.bans.load(bans, now)
	homes, err := m.Homes(ctx, maxLoaded)
	if err != nil {
		return fmt.Errorf("policy: reading where accounts are at home: %w", err)
	}
	for i := len(homes) - 1; i >= 0; i-- { // the latest last, so that they are the last to go
		g.remember(homes[i], now)
	}
	text, err := m.Mark(ctx, normsMark)
	if err != nil {
		return fmt.Errorf("policy: reading what is usual: %w", err)
	}
	if text == "" {
		return nil
	}
	if err := g.machine.setNorms(text); err != nil {
		return fmt.Errorf("policy: reading what is usual from the store's mark %q: %w", normsMark, err)
	}
	return nil
}

func (g *Gate) remember(h Home, now time.Time) {
	if now.Sub(h.Last) >= residentFor || !h.Site.IsValid() {
		return
	}
	source := SourceOf(h.Site.Addr())
	key := g.accountKindKey(h.Account, h.AppPassword)
	g.familiar.with(key, now, func(e *familiarEntry, _ *flying) { e.add(source, h.Last) })
	g.networks.with(g.prefixKey(source.Network()), now, func(e *networkEntry, _ *flying) { e.home = max(e.home, secondsOf(h.Last)) })
}

// Run has the memory know what is new, until ctx ends; then once more. An error says that a last
// time something couldn't be stored; before that, failed is told of each such failure, and what
// couldn't be stored is stored later.
func (g *Gate) Run(ctx context.Context, failed func(error)) error {
	g.start()
	store, purge := time.NewTicker(rememberEvery), time.NewTicker(purgeEvery)
	defer store.Stop()
	defer purge.Stop()
	for {
		var err error
		select {
		case <-g.pending.wake:
			err = g.store(ctx)
		case <-store.C:
			err = g.store(ctx)
		case <-purge.C:
			err = errors.Join(g.storeNorms(ctx), g.purge(ctx))
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastRemember)
			defer cancel()
			return errors.Join(g.store(last), g.storeNorms(last))
		}
		if err != nil && ctx.Err() == nil {
			failed(err)
		}
	}
}

func (g *Gate) store(ctx context.Context) error {
	if g.memory == nil {
		return nil
	}
	g.storing.Lock()
	defer g.storing.Unlock()
	homes, bans := g.pending.take()
	if len(bans) > 0 {
		if err := g.memory.PutBans(ctx, bans...); err != nil {
			g.pending.putBack(homes, bans)
			return fmt.Errorf("policy: storing bans: %w", err)
		}
	}
	for len(homes) > 0 { // in parts, for logins wait meanwhile that have something to write
		n := min(len(homes), maxStored)
		if err := g.memory.PutHomes(ctx, homes[:n]...); err != nil {
			g.pending.putBack(homes, nil)
			return fmt.Errorf("policy: storing where accounts are at home: %w", err)
		}
		homes = homes[n:]
	}
	return g.storeStale(ctx)
}

// storeStale has the memory forget the bans that went, and learn of those that are others now.
func (g *Gate) storeStale(ctx context.Context) error {
	for {
		changed, gone := g.bans.takeStale(maxStored)
		if len(changed)+len(gone) == 0 {
			return nil
		}
		if err := errors.Join(g.memory.PutBans(ctx, changed...), g.memory.RemoveBans(ctx, gone...)); err != nil {
			g.bans.putBackStale(changed, gone)
			return fmt.Errorf("policy: storing which bans are left: %w", err)
		}
	}
}

func (g *Gate) storeNorms(ctx context.Context) error {
	if g.memory == nil {
		return nil
	}
	text, err := json.Marshal(g.machine.known())
	if err == nil {
		err = g.memory.SetMark(ctx, normsMark, string(text))
	}
	if err != nil {
		return fmt.Errorf("policy: storing what is usual: %w", err)
	}
	return nil
}

func (g *Gate) purge(ctx context.Context) error {
	if g.memory == nil {
		return nil
	}
	now := g.now()
	if err := g.memory.PurgeMemory(ctx, now.Add(-banMemory), now.Add(-residentFor)); err != nil {
		return fmt.Errorf("policy: purging: %w", err)
	}
	return nil
}

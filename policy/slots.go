package policy

import (
	"net/netip"
	"sync"
	"time"
)

// slots counts open connections. It needs no bound of its own: each count is of
// connections that exist, and goes with the last of them.
type slots struct {
	mu          sync.Mutex
	beforeLogin int
	strangers   int                  // of them, from networks where nobody is at home
	sites       map[netip.Prefix]int // before login
	networks    map[netip.Prefix]int // before login, /24 and /48
	accounts    map[string]int       // after login
	pairs       map[pair]int         // after login
}

type pair struct {
	account string
	site    netip.Prefix
}

// A Slot is the right to one connection, until it is released.
type Slot struct {
	once sync.Once
	free func()
}

// Release gives the slot back. More calls do nothing, nor does one on a nil Slot.
func (s *Slot) Release() {
	if s != nil {
		s.once.Do(s.free)
	}
}

// Admit decides whether a new connection may begin, before anything is spent on
// it, TLS least of all. The slot is held until login or the end; it is nil
// when the connection is refused.
func (g *Gate) Admit(addr netip.Addr) (Decision, *Slot) {
	g.start()
	source := SourceOf(addr)
	site, network, trusted := source.Site(), source.Network(), g.limits.trusts(source.Addr)
	if d := g.judgeDoor(source, trusted); !d.Allowed {
		return d, nil
	}
	shared := trusted || g.limits.isWebmail(source.Addr) // by people from anywhere
	stranger := !shared && !g.resides(source, g.now())
	s := &g.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	f := admissionFacts{stranger: stranger, strangers: s.strangers, total: s.beforeLogin}
	if !shared {
		f.site, f.network = s.sites[site], s.networks[network]
	}
	d := judgeAdmission(f, g.limits)
	if !d.Allowed {
		return d, nil
	}
	s.beforeLogin++
	if stranger {
		s.strangers++
	}
	s.sites[site]++
	s.networks[network]++
	return d, &Slot{free: func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.beforeLogin--
		if stranger {
			s.strangers--
		}
		giveBack(s.sites, site)
		giveBack(s.networks, network)
	}}
}

// doorRate is how many connections from a banned network are still let in: so that people's mail
// programs are told to wait, and don't take us for broken.
var doorRate = rate{burst: 20, per: time.Minute}

// judgeDoor refuses who is banned before anything is spent on them, but for a few connections, whose
// attempts are refused later. Where some account is at home, all come in, for an attempt has to
// say for whom it comes; not where an administrator has banned them.
func (g *Gate) judgeDoor(source Source, trusted bool) (d Decision) {
	now := g.now()
	f := g.banFacts(source.Addr, now)
	d = judgeBan(f, false)
	if d.Allowed || trusted || g.limits.Observe {
		return Decision{Allowed: true}
	}
	g.networks.with(g.prefixKey(source.Network()), now, func(e *networkEntry, _ *flying) {
		if e.door.left(now, doorRate) >= 1 {
			e.door.take(now, doorRate, 1)
			d = Decision{Allowed: true}
		} else {
			d = judgeBan(f, e.resides(now))
		}
	})
	return d
}

// admissionFacts is what a decision about a new connection needs to know of those before login.
type admissionFacts struct {
	site, network int  // of the same; 0 where people from anywhere share it
	total         int  // of all
	strangers     int  // of them, from networks where nobody is at home
	stranger      bool // the new one comes from such a network
}

// judgeAdmission lets one network have a tenth of all places: somebody with a /48 has
// 65,536 sites in it, and must not be able to shut the door for everybody. Nor must somebody with many:
// a quarter is for networks where some account is at home.
func judgeAdmission(f admissionFacts, l Limits) Decision {
	switch {
	case f.site >= l.ConnectionsBeforeLogin:
		return Decision{Signal: ConnectionsBeforeLogin}
	case f.network >= max(l.TotalBeforeLogin/10, l.ConnectionsBeforeLogin):
		return Decision{Signal: ConnectionsNetwork}
	case f.total >= l.TotalBeforeLogin, f.stranger && f.strangers >= l.TotalBeforeLogin-l.TotalBeforeLogin/4:
		return Decision{Signal: ConnectionsTotal}
	}
	return Decision{Allowed: true}
}

// Enter decides whether an account that has just logged in may have one more
// session. Where most is more than 0, as a rule's max_sessions, the account may have
// that many, from all addresses together, in place of Limits.PerAccount. The slot
// is held until the session's end; it is nil when refused.
func (g *Gate) Enter(addr netip.Addr, account string, most int) (Decision, *Slot) {
	g.start()
	at := pair{account, SourceOf(addr).Site()}
	s := &g.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	limits := g.limits
	if most > 0 {
		limits.PerAccount = most
	}
	d := judgeEntry(s.pairs[at], s.accounts[account], limits)
	if !d.Allowed {
		return d, nil
	}
	s.pairs[at]++
	s.accounts[account]++
	return d, &Slot{free: func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		giveBack(s.pairs, at)
		giveBack(s.accounts, account)
	}}
}

func judgeEntry(pair, account int, l Limits) Decision {
	switch {
	case pair >= l.PerAccountAndAddress:
		return Decision{Signal: ConnectionsAccountSource}
	case account >= l.PerAccount:
		return Decision{Signal: ConnectionsAccount}
	}
	return Decision{Allowed: true}
}

func giveBack[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

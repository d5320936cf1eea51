package policy

import (
	"slices"
	"time"
)

const (
	maxPenalty    = time.Hour      // where the doubling ends
	failureMemory = time.Hour      // without a failure so long, those before don't count
	penaltyMemory = 24 * time.Hour // without a penalty so long, the next is the first
	maxSeen       = 10             // wrong secrets remembered for an account
	visitMemory   = 24 * time.Hour // of networks that tried an account
	maxVisits     = 16             // of them
	siegeLasts    = time.Hour      // after many networks have tried it
)

// An accountEntry counts failed attempts on one account from networks where it
// never signed in. Others can fill it, so it never touches the familiar networks:
// the owner at home isn't locked out by somebody else's guessing.
type accountEntry struct {
	last     uint32 // the newest failure; all times are in seconds since 1970
	until    uint32 // the penalty's end
	siege    uint32 // until when the password alone isn't enough from new networks
	penalty  uint32 // in seconds
	codes    bucket
	failures uint32 // since the last penalty began
	seen     seen
	visits   []visit
}

// A visit is what one network has tried on the account lately.
type visit struct {
	network  uint32 // a hash
	at       uint32 // in seconds since 1970, the newest time
	failures uint32
}

// accountFacts is what a decision needs to know of the account.
type accountFacts struct {
	left    int           // failures left, before those of attempts in flight
	flying  int           // attempts in flight from unfamiliar networks
	penalty time.Duration // what remains of one
	codes   float64       // failures with a code left
	refill  time.Duration // until one of these is left
}

func (l *Limits) codes() rate { return rate{burst: l.AccountCodes, per: 24 * time.Hour} }

func (e *accountEntry) facts(now time.Time, flying int, l *Limits) accountFacts {
	left := l.AccountFailures
	if since(e.last, now) < failureMemory {
		left -= int(e.failures)
	}
	return accountFacts{
		left:    left,
		flying:  flying,
		penalty: within(until(e.until, now), maxPenalty),
		codes:   e.codes.left(now, l.codes()),
		refill:  e.codes.refill(now, l.codes()),
	}
}

// judgeAccount decides about passwords without a right code.
func judgeAccount(f accountFacts) Decision {
	switch {
	case f.penalty > 0:
		return refuse(AccountLimit, f.penalty)
	case f.flying >= f.left:
		return refuseBusy(AccountLimit)
	}
	return Decision{Allowed: true}
}

// judgeCodes decides about passwords with a right code. So many tries a day are a chance of one in
// some thousands to hit one, for who has the password already.
func judgeCodes(f accountFacts) Decision {
	if f.codes-float64(f.flying) < 1 {
		return refuse(AccountCodes, f.refill)
	}
	return Decision{Allowed: true}
}

// charge counts one failure; the last of the limit begins a penalty.
func (e *accountEntry) charge(now time.Time, l *Limits) {
	if since(e.last, now) >= failureMemory {
		e.failures = 0
	}
	e.failures++
	e.last = secondsOf(now)
	if int(e.failures) < l.AccountFailures {
		return
	}
	if since(e.until, now) >= penaltyMemory {
		e.penalty = 0
	}
	e.failures = 0
	e.penalty = max(min(2*e.penalty, uint32(maxPenalty/time.Second)), uint32(l.AccountPenalty/time.Second), 1)
	e.until = secondsOf(now.Add(time.Second-1)) + e.penalty
}

// within is a time that is left of one that lasts at most so long: what is longer was written while
// the clock was ahead, and isn't believed.
func within(left, most time.Duration) time.Duration {
	if left > most+time.Minute {
		return 0
	}
	return left
}

// until returns how long it is until then, and 0 where that was already.
func until(at uint32, now time.Time) time.Duration {
	return max(0, time.Unix(int64(at), 0).Sub(now))
}

// siegeFacts is what tells that many networks try one account.
type siegeFacts struct {
	networks int // within a day
	failures int // of them
}

// note remembers an attempt from a network where the account never signed in, and says what is
// known of all of these.
func (e *accountEntry) note(network uint32, failed bool, now time.Time) (f siegeFacts) {
	at := secondsOf(now)
	v := visit{network: network, at: at}
	kept := e.visits[:0]
	for _, old := range e.visits {
		switch {
		case since(old.at, now) >= visitMemory:
		case old.network == network:
			v.failures = old.failures
		default:
			kept = append(kept, old)
		}
	}
	if len(kept) == maxVisits {
		copy(kept, kept[1:])
		kept = kept[:maxVisits-1]
	}
	if failed {
		v.failures++
	}
	e.visits = append(kept, v)
	for _, v := range e.visits {
		f.networks++
		f.failures += int(v.failures)
	}
	return f
}

// judgeSiege says whether that is more than an owner who travels would do.
func judgeSiege(f siegeFacts, l *Limits) bool {
	return f.networks >= min(l.AccountNetworks, maxVisits) || f.networks > 1 && f.failures >= l.AccountNetworkFailures
}

// besiege begins or prolongs the time in which the password alone isn't enough from new
// networks, and says whether it has just begun.
func (e *accountEntry) besiege(now time.Time) (began bool) {
	began = within(until(e.siege, now), siegeLasts) == 0
	e.siege = secondsOf(now.Add(siegeLasts))
	return began
}

func (e *accountEntry) keep(now time.Time) (keeping, uint32) {
	switch {
	case until(e.until+e.penalty, now) > 0, until(e.siege, now) > 0:
		return held, e.last // as long again as the penalty, so that the doubling isn't lost at once
	case e.last == 0 && len(e.visits) == 0 && len(e.seen) == 0:
		return forgotten, 0
	}
	if n := len(e.visits); n > 0 {
		return cached, max(e.last, e.visits[n-1].at)
	}
	return cached, e.last
}

// seen remembers the newest wrong secrets, each with where it came from, as keyed
// hashes: a phone that repeats one stale password has failed once.
type seen []sighting

type sighting struct {
	sight uint32
	at    uint32 // in seconds since 1970
}

// again says whether the sight was there already, and remembers it.
func (s *seen) again(sight uint32, now time.Time) bool {
	i := s.index(sight)
	if i >= 0 {
		*s = slices.Delete(*s, i, i+1)
	} else if len(*s) == maxSeen {
		*s = slices.Delete(*s, 0, 1)
	}
	*s = append(*s, sighting{sight, secondsOf(now)})
	return i >= 0
}

func (s seen) index(sight uint32) int {
	return slices.IndexFunc(s, func(one sighting) bool { return one.sight == sight })
}

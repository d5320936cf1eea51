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
)

// An accountEntry counts failed attempts on one account from networks where it
// never signed in. Others can fill it, so it never touches the familiar networks:
// the owner at home isn't locked out by somebody else's guessing.
type accountEntry struct {
	failures int       // since the last penalty began
	last     time.Time // the newest failure
	penalty  time.Duration
	until    time.Time // the penalty's end
	flying   flying
	seen     seen
}

// accountFacts is what a decision needs to know of the account.
type accountFacts struct {
	left    int           // failures left, before those of attempts in flight
	flying  int           // attempts in flight from unfamiliar networks
	penalty time.Duration // what remains of one
}

func (e *accountEntry) facts(now time.Time, limit int) accountFacts {
	left := limit
	if now.Sub(e.last) < failureMemory {
		left -= e.failures
	}
	return accountFacts{left: left, flying: e.flying.count, penalty: max(0, e.until.Sub(now))}
}

func judgeAccount(f accountFacts) Decision {
	switch {
	case f.penalty > 0:
		return refuse(AccountLimit, f.penalty)
	case f.flying >= f.left:
		return refuseBusy(AccountLimit)
	}
	return Decision{Allowed: true}
}

// charge counts one failure; the last of the limit begins a penalty.
func (e *accountEntry) charge(now time.Time, l Limits) {
	if now.Sub(e.last) >= failureMemory {
		e.failures = 0
	}
	e.failures++
	e.last = now
	if e.failures < l.AccountFailures {
		return
	}
	if now.Sub(e.until) >= penaltyMemory {
		e.penalty = 0
	}
	e.failures = 0
	e.penalty = max(min(2*e.penalty, maxPenalty), l.AccountPenalty)
	e.until = now.Add(e.penalty)
}

func (e *accountEntry) keep(now time.Time) keeping {
	switch {
	case e.flying.count > 0:
		return pinned
	case now.Before(e.until.Add(e.penalty)):
		return held // as long again as the penalty, so that the doubling isn't lost at once
	case e.last.IsZero():
		return forgotten
	}
	return cached
}

// seen remembers the newest wrong secrets, each with where it came from, as keyed
// hashes: a phone that repeats one stale password has failed once.
type seen []uint64

// again says whether the sight was there already, and remembers it.
func (s *seen) again(sight uint64) bool {
	i := slices.Index(*s, sight)
	if i >= 0 {
		*s = slices.Delete(*s, i, i+1)
	} else if len(*s) == maxSeen {
		*s = slices.Delete(*s, 0, 1)
	}
	*s = append(*s, sight)
	return i >= 0
}

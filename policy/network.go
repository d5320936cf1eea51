package policy

import "time"

const (
	failingMemory = time.Hour           // of accounts that failed from a network
	manyMemory    = 30 * time.Minute    // within which too many of them ban it
	maxFailing    = 128                 // of them are remembered; no limit is higher
	residentFor   = 90 * 24 * time.Hour // after a login, somebody is at home in the network
)

// A networkEntry knows which accounts failed lately from a /24 (IPv6: /48), and whether any account
// is at home there.
type networkEntry struct {
	failing []failing // the newest last
	signed  signed
	door    bucket // connections that were let in while it is banned
	home    uint32 // when somebody last signed in from there, in seconds since 1970; 0: nobody did
}

// A failing is one account that failed from a network.
type failing struct {
	account uint32 // a hash
	at      uint32 // in seconds since 1970, the newest time
	unknown bool   // nobody knows the account
}

// networkFacts is what the decision about a ban needs to know.
type networkFacts struct {
	failing int // accounts, within half an hour
	unknown int // of those within an hour, how many nobody knows
	signed  int // accounts that signed in from there lately
}

// note remembers that an account failed from there.
func (e *networkEntry) note(account uint32, unknown bool, now time.Time) {
	at := secondsOf(now)
	kept := e.failing[:0]
	for _, f := range e.failing {
		if f.account != account && since(f.at, now) < failingMemory {
			kept = append(kept, f)
		}
	}
	if len(kept) == maxFailing {
		copy(kept, kept[1:])
		kept = kept[:maxFailing-1]
	}
	e.failing = append(kept, failing{account, at, unknown})
}

func (e *networkEntry) facts(now time.Time) networkFacts {
	f := networkFacts{signed: e.signed.count(now)}
	for _, one := range e.failing {
		age := since(one.at, now)
		if age < manyMemory {
			f.failing++
		}
		if age < failingMemory && one.unknown {
			f.unknown++
		}
	}
	return f
}

// judgeNetwork says for which signal the network is to be banned; "" for none. A place from which
// many accounts sign in may have more that fail.
func judgeNetwork(f networkFacts, l *Limits) string {
	more := f.signed * l.NATShare / 100
	switch {
	case f.failing > min(l.NetworkAccounts+more, maxFailing-1):
		return NetworkAccounts
	case f.unknown >= min(l.NetworkUnknown+more, maxFailing-1):
		return NetworkUnknown
	}
	return ""
}

// resides says whether some account is at home there.
func (e *networkEntry) resides(now time.Time) bool {
	return e.home != 0 && since(e.home, now) < residentFor
}

// welcome notes a login from there.
func (e *networkEntry) welcome(account uint64, now time.Time) {
	e.signed.mark(account, now)
	e.home = max(e.home, secondsOf(now))
}

func (e *networkEntry) keep(now time.Time) (keeping, uint32) {
	last := max(e.home, e.door.seconds())
	if n := len(e.failing); n > 0 {
		last = max(last, e.failing[n-1].at)
	}
	switch {
	case e.resides(now): // strangers can't make these
		return held, last
	case since(last, now) >= failingMemory:
		return forgotten, 0
	}
	return cached, last
}

package main

import (
	"math"
	"net/netip"
	"slices"
	"time"
)

// A Defence stands before an upstream and answers logins, in the order of time.
type Defence interface {
	Name() string
	Login(l *Login) Answer
}

// An Answer is what became of a login.
type Answer struct {
	In      bool
	Reached bool          // the upstream was asked about the password
	Busy    bool          // another attempt of the source is under way: this one waits a little
	Signal  string        // what refused it in the defence's name; "" where the credentials decided
	Demand  string        // what asked for more than usual, where that was lacking
	Noticed string        // what made the defence say that somebody attacks, at this login
	Took    time.Duration // until the client reads it
	Delayed time.Duration // of that, what was added for this source
}

// Dovecot's own delay of a refusal, auth_failure_delay.
const failureDelay = 2 * time.Second

// ask is the upstream alone: the password decides.
func ask(w *World, l *Login) Answer {
	if w.isRight(l) {
		return Answer{In: true, Reached: true}
	}
	return Answer{Reached: true, Took: failureDelay}
}

// fail2ban is its jail "dovecot" with the defaults of Debian's jail.conf (1.0.2): an address
// with five failures in ten minutes is banned for ten. Every failure counts, as if each had
// its own connection and were read from the log at once.
type fail2ban struct {
	world   *World
	sources map[netip.Addr]*jailed
}

const (
	maxRetry = 5
	findTime = 10 * time.Minute
	banTime  = 10 * time.Minute
)

type jailed struct {
	first, until time.Duration
	retries      int
}

func newFail2ban(w *World) *fail2ban {
	return &fail2ban{world: w, sources: make(map[netip.Addr]*jailed)}
}

func (*fail2ban) Name() string { return "fail2ban" }

func (f *fail2ban) Login(l *Login) Answer {
	now := l.At
	s := f.sources[l.Addr]
	if s != nil && now < s.until {
		return Answer{Signal: "ban"}
	}
	answer := ask(f.world, l)
	if answer.In || l.Addr == webmail { // ignoreip
		return answer
	}
	if s == nil {
		s = &jailed{until: -never}
		f.sources[l.Addr] = s
	}
	if s.fail(now) {
		answer.Noticed = "ban"
	}
	return answer
}

// fail counts as fail2ban's FailTicket.adjustTime does: failures of before are scaled down to
// findtime by their rate.
func (s *jailed) fail(now time.Duration) (banned bool) {
	if s.retries == 0 {
		s.first = now
	}
	if s.first < now-findTime {
		s.retries = int(math.RoundToEven(float64(s.retries) / float64(now-s.first) * float64(findTime)))
		s.first = now - findTime
	}
	s.retries++
	if s.retries < maxRetry {
		return false
	}
	*s = jailed{until: now + banTime}
	return true
}

// penalty is Dovecot's auth penalty (src/auth/auth-penalty.c, src/anvil/penalty.c of 2.3): each
// failure of an address delays its next lookups, by 4, 8 and 15 s; after 15 s without one they are
// forgotten. Nothing is refused.
type penalty struct {
	world   *World
	sources map[netip.Addr]*penalised
}

type penalised struct {
	level int
	last  time.Duration
	seen  []uint64 // the last wrong logins, which count once
}

const maxPenalty = 4

func newPenalty(w *World) *penalty {
	return &penalty{world: w, sources: make(map[netip.Addr]*penalised)}
}

func (*penalty) Name() string { return "auth penalty" }

func (p *penalty) Login(l *Login) Answer {
	now := l.At
	answer := ask(p.world, l)
	if l.Addr == webmail { // login_trusted_networks
		return answer
	}
	ident := l.Addr
	if ident.Is6() {
		ident = network(ident).Addr()
	}
	s := p.sources[ident]
	level := 0
	if s != nil {
		level = s.now(now)
	}
	if level > 0 {
		answer.Delayed = penaltySeconds(level)
	}
	answer.Took = max(answer.Took, answer.Delayed) // a penalty replaces the delay of a failure
	switch {
	case answer.In && level > 0:
		s.level, s.last = 0, now
	case !answer.In:
		if s == nil {
			s = new(penalised)
			p.sources[ident] = s
		}
		s.fail(now, level, hash(uint64(l.Secret), uint64(uint32(l.Account))))
	}
	return answer
}

func penaltySeconds(level int) time.Duration { return min(2*time.Second<<level, 15*time.Second) }

// now is what is left of the penalty: the longer ago, the less.
func (s *penalised) now(now time.Duration) int {
	level := s.level
	for drop := maxPenalty; level > 0 && now-s.last >= penaltySeconds(drop); drop-- {
		level--
	}
	return level
}

func (s *penalised) fail(now time.Duration, level int, login uint64) {
	value := min(level+1, maxPenalty)
	if i := slices.Index(s.seen, login); i >= 0 {
		s.seen = slices.Insert(slices.Delete(s.seen, i, i+1), 0, login)
		s.level = value - 1
		return
	}
	s.seen = slices.Insert(s.seen, 0, login)
	s.seen = s.seen[:min(len(s.seen), 10)]
	s.level, s.last = value, now
}

// addressLimits are ten failures a minute and fifty a day for each address (IPv6: /64), alone,
// for everybody.
type addressLimits struct {
	world   *World
	sources map[netip.Prefix]*limited
}

type limited struct{ minute, day tokens }

// tokens is a bucket that fills up in the course of a period.
type tokens struct {
	used float64
	last time.Duration
}

const (
	perMinute = 10
	perDay    = 50
)

func newAddressLimits(w *World) *addressLimits {
	return &addressLimits{world: w, sources: make(map[netip.Prefix]*limited)}
}

func (*addressLimits) Name() string { return "per-address limits" }

func (a *addressLimits) Login(l *Login) Answer {
	now := l.At
	if l.Addr == webmail {
		return ask(a.world, l)
	}
	site := grantNetwork(l.Addr)
	if l.Addr.Is4() {
		site = netip.PrefixFrom(l.Addr, 32)
	}
	s := a.sources[site]
	if s != nil && (s.minute.at(now, perMinute, time.Minute) > perMinute-1 || s.day.at(now, perDay, day) > perDay-1) {
		return Answer{Signal: "address-limit", Noticed: "address-limit", Took: failureDelay}
	}
	answer := ask(a.world, l)
	if !answer.In {
		if s == nil {
			s = &limited{minute: tokens{last: now}, day: tokens{last: now}}
			a.sources[site] = s
		}
		s.minute.used++
		s.day.used++
	}
	return answer
}

func (t *tokens) at(now time.Duration, burst float64, period time.Duration) float64 {
	t.used = max(0, t.used-burst*float64(now-t.last)/float64(period))
	t.last = now
	return t.used
}

package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Tally is what one defence made of one day.
type Tally struct {
	Defence string `json:"defence"`
	Hostile
	Honest
	Attacks map[string]*Hostile `json:"attacks,omitempty"` // each, where there are several
	Seconds float64             `json:"seconds"`           // that the replay took
}

// Hostile is what became of attackers' attempts.
type Hostile struct {
	Attempts     int     `json:"attempts"`
	Unmade       int     `json:"unmade"` // planned, and the day was over: refusals took so long
	Reached      int     `json:"reached"`
	Right        int     `json:"right"`         // with the account's password
	RightReached int     `json:"right_reached"` // of these, that the upstream saw
	TakenOver    int     `json:"taken_over"`    // accounts
	Noticed      string  `json:"noticed"`       // the first signal; "" : none
	NoticedAfter float64 `json:"noticed_after"` // seconds since the first attempt

	began time.Duration
	taken map[int32]bool
}

// Honest is what became of honest logins on the measured day that are let in where nobody attacks and nothing is
// limited.
type Honest struct {
	Logins          int       `json:"logins"`
	LoginsFamiliar  int       `json:"logins_familiar"`
	RefusedFamiliar int       `json:"refused_familiar"` // where the account signed in before
	RefusedElse     int       `json:"refused_elsewhere"`
	AskedMore       int       `json:"asked_more"` // refused, since this password needs more than usual now
	Slowed          int       `json:"slowed"`     // let in, and only after a delay
	Failures        int       `json:"failures"`   // logins that nobody would let in
	Refusals        []Refusal `json:"refusals"`   // of the refused ones, the most frequent kinds first

	kinds map[Refusal]int
}

// A Refusal is a kind of honest login that was refused.
type Refusal struct {
	Count     int    `json:"count"`
	Signal    string `json:"signal"`
	AskedMore bool   `json:"asked_more"`
	Familiar  bool   `json:"familiar"`
	Why       string `json:"why"`
	Place     string `json:"place"`
}

// How long an attempt waits for one before it: timeouts.login's default.
const (
	loginTimeout = 15 * time.Second
	pollEvery    = time.Second
)

// A replay is one day before one defence.
type replay struct {
	world     *World
	attackers *Attackers
	defence   Defence
	streams   [][]Login // what is left of them, each by time
	lanes     map[source]*lane
	later     queue[event]
	out       *Tally
}

// A source is where one attacker comes from, with a bounded number of attempts under way.
type source struct {
	attack int8
	addr   netip.Addr
}

// A lane is what a source has under way, and what waits for that.
type lane struct {
	busy    int
	waiting []*Login
}

// An event is something that happens later: an attempt that waited is tried again, or
// a source has its answer.
type event struct {
	try  *try
	lane *lane
}

// A try is a login on its way.
type try struct {
	Login
	began time.Duration
	lane  *lane // nil: an honest one
}

// Replay has the defence answer all logins. Each stream is by time.
func Replay(w *World, a *Attackers, d Defence, streams ...[]Login) *Tally {
	began := time.Now()
	r := &replay{world: w, attackers: a, defence: d, streams: streams, lanes: make(map[source]*lane), out: &Tally{
		Defence: d.Name(), Attacks: make(map[string]*Hostile),
		Honest: Honest{kinds: make(map[Refusal]int)},
	}}
	for r.step() {
	}
	for _, l := range r.lanes {
		for _, waiting := range l.waiting {
			r.hostile(waiting, func(h *Hostile) { h.Unmade++ })
		}
	}
	r.out.listRefusals()
	r.out.Seconds = time.Since(began).Seconds()
	return r.out
}

// step lets the next thing happen, and says whether there was one before the day was over.
func (r *replay) step() bool {
	first, at := -1, never
	for i, s := range r.streams {
		if len(s) > 0 && s[0].At < at {
			first, at = i, s[0].At
		}
	}
	if due := r.later.next(); due <= at {
		e, ok := r.later.due(due)
		if !ok || due >= day {
			return false
		}
		if e.try != nil {
			r.attempt(e.try, due)
		} else {
			r.answered(e.lane, due)
		}
		return true
	}
	l := &r.streams[first][0]
	r.streams[first] = r.streams[first][1:]
	if l.From == 0 {
		r.attempt(&try{Login: *l, began: at}, at)
		return true
	}
	from := source{l.From, l.Addr}
	if r.lanes[from] == nil {
		r.lanes[from] = new(lane)
	}
	r.start(l, r.lanes[from], at)
	return true
}

// start makes a hostile attempt, once its source has few enough under way.
func (r *replay) start(l *Login, from *lane, now time.Duration) {
	if from.busy >= r.attackers.Connections(int(l.From-1)) {
		from.waiting = append(from.waiting, l)
		return
	}
	from.busy++
	r.attempt(&try{Login: *l, began: now, lane: from}, now)
}

// answered is a hostile source that has read an answer, and goes on.
func (r *replay) answered(from *lane, now time.Duration) {
	from.busy--
	if len(from.waiting) > 0 {
		l := from.waiting[0]
		from.waiting = from.waiting[1:]
		r.start(l, from, now)
	}
}

// attempt shows the login to the defence.
func (r *replay) attempt(t *try, now time.Duration) {
	t.At = now
	answer := r.defence.Login(&t.Login)
	if answer.Busy && now-t.began < loginTimeout {
		r.later.add(now+pollEvery, event{try: t})
		return
	}
	if t.lane != nil {
		r.later.add(now+max(answer.Took, time.Millisecond), event{lane: t.lane})
		r.hostile(&t.Login, func(h *Hostile) { h.note(r.world, &t.Login, answer) })
		return
	}
	if now >= 0 {
		r.out.Honest.note(&t.Login, answer)
	}
}

// hostile counts for one attack, and for all of them.
func (r *replay) hostile(l *Login, count func(*Hostile)) {
	name := attacks[l.From-1].Name
	if r.out.Attacks[name] == nil {
		r.out.Attacks[name] = new(Hostile)
	}
	count(&r.out.Hostile)
	count(r.out.Attacks[name])
}

func (h *Hostile) note(w *World, l *Login, answer Answer) {
	if h.Attempts == 0 {
		h.began, h.taken = l.At, make(map[int32]bool)
	}
	h.Attempts++
	if answer.Reached {
		h.Reached++
	}
	if w.isRight(l) {
		h.Right++
		if answer.Reached {
			h.RightReached++
		}
	}
	if answer.In && !h.taken[l.Account] {
		h.taken[l.Account] = true
		h.TakenOver++
	}
	if h.Noticed == "" && answer.Noticed != "" {
		h.Noticed, h.NoticedAfter = answer.Noticed, (l.At - h.began).Seconds()
	}
}

func (h *Honest) note(l *Login, answer Answer) {
	if !l.Right {
		h.Failures++
		return
	}
	h.Logins++
	if l.Familiar {
		h.LoginsFamiliar++
	}
	switch {
	case answer.In:
		if answer.Delayed > 0 {
			h.Slowed++
		}
		return
	case answer.Demand != "":
		h.AskedMore++
	case l.Familiar:
		h.RefusedFamiliar++
	default:
		h.RefusedElse++
	}
	signal := answer.Demand
	if signal == "" {
		signal = answer.Signal
	}
	if signal == "" {
		signal = "no second factor" // an earlier refusal has kept them from their grant
	}
	h.kinds[Refusal{Signal: signal, AskedMore: answer.Demand != "", Familiar: l.Familiar, Why: l.Why.String(), Place: placeOf(l.Addr)}]++
}

func (h *Honest) listRefusals() {
	for kind, count := range h.kinds {
		kind.Count = count
		h.Refusals = append(h.Refusals, kind)
	}
	slices.SortFunc(h.Refusals, func(a, b Refusal) int {
		return cmp.Or(b.Count-a.Count, strings.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
}

// placeOf says what kind of place an address of the world's is.
func placeOf(a netip.Addr) string {
	switch {
	case a == webmail:
		return "webmail"
	case a.Is6():
		return "home"
	}
	switch a.As4()[0] {
	case homes4.As4()[0]:
		return "home"
	case carriers4.As4()[0]:
		return "carrier"
	case offices4.As4()[0]:
		return "office"
	case hotels4.As4()[0]:
		return "hotel"
	}
	return "elsewhere"
}

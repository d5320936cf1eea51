package main

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// live makes what all people do, from the first day of the history to the end of the measured one.
func (w *World) live() {
	for i := range w.Accounts {
		o := &owner{
			world: w, account: int32(i), who: &w.Accounts[i], random: w.random(forDay, i),
			factors: newFactors(), seen: make(map[netip.Prefix]bool),
		}
		o.live()
		w.Logins = append(w.Logins, o.logins...)
	}
	slices.SortStableFunc(w.Logins, func(a, b Login) int { return cmp.Compare(a.At, b.At) })
}

// An owner is a person while the days of their account are made.
type owner struct {
	world   *World
	account int32
	who     *account
	random  *rand.Rand

	devices []device
	intents []intent
	factors *factors // as if nobody attacked and nothing were limited
	seen    map[netip.Prefix]bool
	logins  []Login
}

// A device is a mail program, or the account's session in a webmail.
type device struct {
	id      int32
	app     bool   // has an app password
	revoked bool   // had one
	secret  Secret // that is stored in it; 0: it was never set up
	digits  uint32 // of the code that was typed with it
	frozen  bool   // nobody looks after it
	updated time.Duration
}

// An intent is a device that wants to sign in.
type intent struct {
	at          time.Duration
	addr        netip.Addr
	device      int
	connections int
	session     time.Duration
	person      bool // who can type a code sits there
	why         Circumstance
}

// The devices of everybody, by index; some have no more.
const (
	desk = iota
	phone
	browser
	old // a phone that nobody has told of the new password
	kinds
)

func (o *owner) live() {
	w := o.world
	o.devices = make([]device, kinds)
	for i := range o.devices {
		w.devices++
		o.devices[i] = device{id: w.devices}
	}
	o.devices[desk].app = o.chance(w.AppPasswordDesks)
	o.devices[phone].app = o.chance(w.AppPasswordPhones)
	o.devices[old].frozen, o.devices[old].revoked = true, o.devices[phone].app

	hasPhone, hasWebmail, hasOld := o.chance(w.Phones), o.chance(w.Webmail), o.chance(w.StalePhones)
	if hasOld { // they changed their password before all this
		o.devices[old].secret = mistyped + Secret(o.account)
	}
	if o.chance(w.Changes) {
		o.who.changes[1] = 9*time.Hour + o.within(8*time.Hour)
	}
	silent := o.chance(w.WebmailSilent)
	for n := -w.History; n <= 0; n++ {
		o.desk(n)
		if hasPhone {
			o.phone(n)
		}
		if hasWebmail {
			o.webmail(n, silent)
		}
		if hasOld {
			o.stale(n, hasPhone)
		}
	}
	slices.SortStableFunc(o.intents, func(a, b intent) int { return cmp.Compare(a.at, b.at) })
	for _, in := range o.intents {
		o.connect(in)
	}
}

// desk: the mail program at work, with the hours of an office, and some evenings at home. In
// the history it signs in once in each place.
func (o *owner) desk(n int) {
	at := o.place(n)
	start := o.around(9*time.Hour, 40*time.Minute)
	end := start + 9*time.Hour
	morning := intent{at: days(n) + start, addr: at, device: desk, connections: o.world.Connections, session: 9 * time.Hour, person: true, why: o.usual(Daily)}
	if n < 0 {
		morning.connections = 1
		o.intents = append(o.intents, morning)
		return
	}
	o.intents = append(o.intents, morning)
	for t := start + o.every(o.world.DeskReconnect); t < end; t += o.every(o.world.DeskReconnect) {
		again := morning
		again.at, again.connections, again.session, again.person = days(n)+t, 1, 30*time.Minute, o.chance(0.7)
		o.intents = append(o.intents, again)
	}
	if o.chance(0.4) {
		evening := morning
		evening.at, evening.addr, evening.session = days(n)+o.around(20*time.Hour, time.Hour), o.evening(n), time.Hour
		o.intents = append(o.intents, evening)
	}
}

// phone: at home, on the way, at work and back. It reconnects where it goes, and now and then.
func (o *owner) phone(n int) {
	leave, arrive := o.around(7*time.Hour+30*time.Minute, 30*time.Minute), o.around(8*time.Hour+30*time.Minute, 20*time.Minute)
	back, home := o.around(17*time.Hour+30*time.Minute, 30*time.Minute), o.around(18*time.Hour+30*time.Minute, 30*time.Minute)
	stays := []struct {
		from, to time.Duration
		roaming  bool
		addr     netip.Addr
	}{
		{0, leave, false, o.evening(n)},
		{leave, arrive, true, netip.Addr{}},
		{arrive, back, !o.who.office.IsValid() || o.chance(0.5), o.place(n)},
		{back, home, true, netip.Addr{}},
		{home, day, false, o.evening(n)},
	}
	for i, s := range stays {
		if n < 0 && (i == 0 || i == 3) {
			continue // once in each place is enough
		}
		first := true
		for t := s.from + o.within(time.Minute); t < s.to; t += o.every(o.world.RoamReconnect) {
			in := intent{at: days(n) + t, addr: s.addr, device: phone, connections: 1, session: 30 * time.Minute, person: t > 7*time.Hour && o.chance(0.3), why: o.usual(Daily)}
			if s.roaming {
				in.addr, in.why = o.world.gateway(o.who.carrier, o.devices[phone].id, in.at), Roaming
			}
			if first && n == 0 {
				in.connections = 2
			}
			o.intents = append(o.intents, in)
			if first = false; n < 0 {
				break
			}
		}
	}
}

// webmail: a visit or two, each page a login.
func (o *owner) webmail(n int, silent bool) {
	for range 1 + o.random.IntN(2) {
		t := days(n) + o.around(14*time.Hour, 3*time.Hour)
		addr := o.place(n)
		if silent {
			addr = webmail
		}
		pages := 1
		if n == 0 {
			pages += o.random.IntN(2 * o.world.PageViews)
		}
		for i := range pages {
			o.intents = append(o.intents, intent{at: t, addr: addr, device: browser, connections: 1, session: time.Second, person: i == 0, why: AtWebmail})
			t += o.every(40 * time.Second)
		}
	}
}

// stale: a phone that repeats its old secret, at home or wherever its owner goes.
func (o *owner) stale(n int, roams bool) {
	retry := o.world.StaleRetry
	if n < 0 {
		retry = 4 * time.Hour // the history is coarser
	}
	for t := o.within(retry); t < day; t += retry {
		in := intent{at: days(n) + t, addr: o.evening(n), device: old, connections: 1, why: OldSecret}
		if roams && t > 8*time.Hour && t < 18*time.Hour {
			in.addr = o.world.gateway(o.who.carrier, o.devices[old].id, in.at)
		}
		o.intents = append(o.intents, in)
	}
}

// place is where the owner works on that day, evening where they sleep.
func (o *owner) place(n int) netip.Addr {
	if n < 0 || !o.who.hotel.IsValid() {
		if o.who.office.IsValid() && !weekend(n) {
			return o.who.office
		}
	}
	return o.evening(n)
}

func (o *owner) evening(n int) netip.Addr {
	if n == 0 && o.who.hotel.IsValid() {
		return o.who.hotel
	}
	return o.who.home.at(o.world, n)
}

func (o *owner) usual(why Circumstance) Circumstance {
	if o.who.hotel.IsValid() {
		return Travelling
	}
	return why
}

// connect makes the logins of an intent. A mail program tries what it has; where that isn't enough
// any more, whoever sits there types the password and a code.
func (o *owner) connect(in intent) {
	d := &o.devices[in.device]
	l := Login{At: in.at, Session: in.session, Addr: in.addr, Account: o.account, Device: d.id, Secret: d.secret, Why: in.why}
	if d.app || d.revoked {
		l.AppPassword, l.Right, l.Secret = true, !d.revoked, appPassword+Secret(d.id)
		if d.revoked {
			l.Secret = revokedApp + Secret(d.id)
		}
		o.repeat(l, in.connections)
		return
	}
	current := o.who.password(in.at)
	if d.secret == 0 {
		if in.person {
			o.typed(l, in, current)
		}
		return
	}
	if l.Digits = d.digits; l.Digits > 0 {
		l.Code = StaleCode
	}
	if d.secret == current && o.factors.grants(&l) {
		l.Right = true
		o.repeat(l, in.connections)
		return
	}
	if l.Why = LacksCode; d.secret != current {
		l.Why = OldSecret
	}
	if o.emit(l); d.frozen || !in.person || d.secret != current && !o.updates(d, in.at) {
		return
	}
	o.typed(l, in, current)
}

// updates says whether the owner has got round to telling the device of a new password.
func (o *owner) updates(d *device, now time.Duration) bool {
	if d.updated == 0 {
		d.updated = o.who.changes[1] + o.every(o.world.UpdateLater)
	}
	return now >= d.updated
}

// typed is a person who types the password and a code, until both are right.
func (o *owner) typed(l Login, in intent, current Secret) {
	wait := func() { l.At += 10*time.Second + o.within(30*time.Second) }
	wait()
	l.Secret = current
	if o.chance(o.world.Forgotten) {
		l.Code, l.Digits, l.Why = NoCode, 0, LacksCode
		o.emit(l)
		wait()
	}
	good := Typed
	for tries := 0; tries < 4 && o.chance(o.world.Mistyped); tries++ {
		wrong := l
		wrong.Why, wrong.Digits = TypedBad, o.newCode()
		if wrong.Code = WrongCode; o.chance(0.7) { // most errors are in the password
			wrong.Code, wrong.Secret = FreshCode, mistyped+Secret(o.random.IntN(1<<27))
		}
		o.emit(wrong)
		wait()
		good = Retyped
	}
	d := &o.devices[in.device]
	d.secret, d.digits = current, o.newCode()
	l.Why, l.Code, l.Digits, l.Right = good, FreshCode, d.digits, true
	o.repeat(l, in.connections)
}

// repeat emits a login on several connections, which a mail program opens all at once.
func (o *owner) repeat(l Login, connections int) {
	for range connections {
		o.emit(l)
		l.At += o.within(200 * time.Millisecond)
	}
}

func (o *owner) emit(l Login) {
	home := network(l.Addr)
	l.Familiar = o.seen[home]
	if l.Right {
		o.factors.enter(&l)
		o.seen[home] = true
	}
	if l.At < day {
		o.logins = append(o.logins, l)
	}
}

func (o *owner) newCode() uint32 { return 1_000_000 + uint32(o.random.IntN(1_000_000)) }

func (o *owner) chance(share float64) bool { return o.random.Float64() < share }

// around is a time of day, with the given deviation.
func (o *owner) around(t, deviation time.Duration) time.Duration {
	return min(max(0, t+time.Duration(o.random.NormFloat64()*float64(deviation))), day-time.Minute)
}

// every is how long it is until something happens that happens so often.
func (o *owner) every(mean time.Duration) time.Duration {
	return time.Duration(o.random.ExpFloat64() * float64(mean))
}

func (o *owner) within(d time.Duration) time.Duration {
	return time.Duration(o.random.Int64N(int64(d)))
}

func days(n int) time.Duration { return time.Duration(n) * day }

// weekend: the measured day is a Tuesday.
func weekend(n int) bool {
	weekday := ((int(time.Tuesday)+n)%7 + 7) % 7
	return weekday == int(time.Saturday) || weekday == int(time.Sunday)
}

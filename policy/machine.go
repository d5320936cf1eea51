package policy

import (
	"encoding/json"
	"sync"
	"time"
)

const (
	watchedMinutes = 10   // minutes over which failures are compared with the norm
	fewest         = 50   // attempts in them, or nothing can be said
	fewestFail     = 25   // failures in them
	learnFrom      = 20   // attempts in an hour that say something of its norm
	learnShare     = 0.25 // how much of a new day goes into an hour's norm
	firstNorm      = 0.2  // an hour of which nothing is known yet
)

// A machine knows how many attempts fail, of all accounts together, and what is usual
// at the hour of the day.
type machine struct {
	mu      sync.Mutex
	minutes [watchedMinutes]tally
	minute  int64 // since 1970, of the newest of them
	hour    tally
	norms   norms
	alarmed bool

	strangers [3]bucket // by closeness
	flying    [3]flying // of these, in flight
	unproved  bucket
}

// A closeness is how close a stranger is to where accounts are at home. Each has a budget of its own, so
// that sprayers from anywhere don't use up that of people on their way.
type closeness int

const (
	nowhere   closeness = iota // nobody signs in from the network
	inhabited                  // somebody does
	near                       // the account itself does from one close by, as with the same carrier
	crowded                    // it does from this one, where neighbours have used up what they share
)

// A tally is what became of attempts.
type tally struct{ attempts, failures int }

func (t tally) share() float64 {
	if t.attempts == 0 {
		return 0
	}
	return float64(t.failures) / float64(t.attempts)
}

// norms are the usual shares of failures by the hour of the day, UTC; each as a number from 0
// to 1, and negative where nothing is known.
type norms [24]float64

func (n *norms) at(hour int) float64 {
	if n[hour] < 0 {
		return firstNorm
	}
	return n[hour]
}

// learn lets what was seen in an hour change its norm. What is far above it changes it slowly, or
// else an attack that lasts would become the norm.
func (n *norms) learn(hour int, t tally, alarm float64) {
	if t.attempts < learnFrom {
		return
	}
	share := min(t.share(), n.at(hour)+alarm)
	if n[hour] < 0 {
		n[hour] = share
		return
	}
	n[hour] += learnShare * (share - n[hour])
}

// judgeAlarm says whether so much fails that somebody is at work, given whether that was so before.
func judgeAlarm(t tally, norm, alarm float64, was bool) bool {
	if was {
		return t.share() >= norm+alarm/2 && t.attempts > 0
	}
	return t.attempts >= fewest && t.failures >= fewestFail && t.share() >= norm+alarm
}

// count adds an attempt, and says whether an alarm has begun by it.
func (m *machine) count(failed bool, now time.Time, alarm float64) (began bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn(now, alarm)
	for _, t := range []*tally{&m.minutes[m.minute%watchedMinutes], &m.hour} {
		t.attempts++
		if failed {
			t.failures++
		}
	}
	was := m.alarmed
	m.alarmed = judgeAlarm(m.lately(), m.norms.at(now.UTC().Hour()), alarm, was)
	return m.alarmed && !was
}

// turn clears what is older than what is watched, and learns of an hour that is over. Where the clock
// was set back, what was counted before belongs to no time, and nothing is learnt of it.
func (m *machine) turn(now time.Time, alarm float64) {
	minute := now.Unix() / 60
	if m.minute > minute+1 {
		m.minutes, m.hour, m.minute, m.alarmed = [watchedMinutes]tally{}, tally{}, 0, false
	}
	if m.minute == 0 {
		m.minute = minute
	}
	for ; m.minute < minute; m.minute++ {
		if (m.minute+1)%60 == 0 {
			m.norms.learn(int(m.minute/60%24), m.hour, alarm)
			m.hour = tally{}
		}
		m.minutes[(m.minute+1)%watchedMinutes] = tally{}
		if minute-m.minute > 48*60 { // nothing was asked for days
			m.minutes, m.hour, m.minute = [watchedMinutes]tally{}, tally{}, minute-1
		}
	}
}

func (m *machine) lately() (sum tally) {
	for _, t := range m.minutes {
		sum.attempts += t.attempts
		sum.failures += t.failures
	}
	return sum
}

// isAlarmed says whether far more fails than is usual.
func (m *machine) isAlarmed(now time.Time, alarm float64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn(now, alarm)
	m.alarmed = m.alarmed && judgeAlarm(m.lately(), m.norms.at(now.UTC().Hour()), alarm, true)
	return m.alarmed
}

// machineFacts is what a decision about a stranger needs to know.
type machineFacts struct {
	strangers float64       // failures left where the password alone lets in
	refill    time.Duration // until one is left
	unproved  float64       // attempts left that are shown to the upstream without need
}

func (m *machine) facts(c closeness, accounts int, l *Limits, now time.Time) machineFacts {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c == crowded { // the account's own limit holds, and what others do elsewhere doesn't matter
		return machineFacts{strangers: 1, unproved: m.unproved.left(now, l.unproved())}
	}
	limit := l.strangers(accounts)
	b := m.strangers[c]
	return machineFacts{strangers: b.left(now, limit), refill: b.refill(now, limit), unproved: m.unproved.left(now, l.unproved())}
}

// strangers is how much may fail in an hour where the password alone lets in, for each closeness.
func (l *Limits) strangers(accounts int) rate {
	n := l.StrangersPerHour
	if n == 0 {
		n = max(30, accounts/400)
	}
	return rate{burst: n, per: time.Hour}
}

// unproved is how much may be shown to the upstream that can't be let in anyway: some at once, or else
// the first hour of a day would have used it up, and then so much an hour.
func (l *Limits) unproved() rate {
	return rate{burst: 4 * l.UnprovedPerHour, per: 4 * time.Hour}
}

// showUnproved takes one of the attempts that are shown to the upstream without need. It refuses
// where another has taken the last.
func (m *machine) showUnproved(d Decision, now time.Time, l *Limits) Decision {
	m.mu.Lock()
	defer m.mu.Unlock()
	if d.Observed != "" || l.observes(Unproved) {
		return d
	}
	if m.unproved.left(now, l.unproved()) < 1 {
		return Decision{Signal: Unproved, Looks: d.Looks}
	}
	m.unproved.take(now, l.unproved(), 1)
	return d
}

// enterStranger counts an allowed attempt as in flight among strangers with a password alone. Where only
// others in flight stand in its way, settled is closed when one of them ends.
func (m *machine) enterStranger(d Decision, c closeness, accounts int, now time.Time, l *Limits) (_ Decision, settled <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c == crowded {
		return d, nil
	}
	if left := m.strangers[c].left(now, l.strangers(accounts)); left-float64(m.flying[c].count) < 1 && !l.observes(StrangersLimit) {
		d = refuseBusy(StrangersLimit)
	}
	return d, m.flying[c].enter(d)
}

// leaveStranger ends that.
func (m *machine) leaveStranger(c closeness, failed bool, accounts int, now time.Time, l *Limits) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c == crowded {
		return
	}
	m.flying[c].leave()
	if failed {
		m.strangers[c].take(now, l.strangers(accounts), 1)
	}
}

// known returns the norms, and setNorms reads them.
func (m *machine) known() norms {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.norms
}

func (m *machine) setNorms(text string) error {
	var read []float64
	if err := json.Unmarshal([]byte(text), &read); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.norms[:], read)
	return nil
}

func (g *Gate) alarmShare() float64 { return float64(g.limits.AlarmShare) / 100 }

// Alarmed says whether far more attempts fail than is usual at this hour.
func (g *Gate) Alarmed() bool {
	g.start()
	return !g.limits.observes(MachineAlarm) && g.machine.isAlarmed(g.now(), g.alarmShare())
}

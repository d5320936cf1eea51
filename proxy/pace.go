package proxy

import (
	"sync"
	"time"
)

// paceWindow is how long a measured time counts, at least.
const paceWindow = 10 * time.Minute

// pace knows how much longer an upstream takes over a wrong password than over a right
// one (Dovecot: auth_failure_delay, two seconds). A refusal of ours of a right password
// must last as if it had been wrong. The fastest times count, for slow ones may be one
// client's penalty, which right and wrong passwords share.
type pace struct {
	mu      sync.Mutex
	yes, no fastest
	warned  time.Time
}

// A fastest is the least of the times of this window and the one before.
type fastest struct {
	since     time.Time
	now, last time.Duration // 0: none
}

func (f *fastest) note(took time.Duration) {
	if time.Since(f.since) > paceWindow {
		f.since, f.last, f.now = time.Now(), f.now, 0
	}
	if f.now == 0 || took < f.now {
		f.now = max(took, 1)
	}
}

func (f *fastest) value() time.Duration {
	if f.now == 0 || f.last != 0 && f.last < f.now {
		return f.last
	}
	return f.now
}

func (p *pace) noteYes(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.yes.note(took)
}

// noteNo also says whether it is time to tell that this upstream is too slow for its
// refusals to be hidden behind the delay of ours.
func (p *pace) noteNo(took, delay time.Duration) (tell bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.no.note(took)
	if took <= delay || time.Since(p.warned) < paceWindow {
		return false
	}
	p.warned = time.Now()
	return true
}

// extra is what a "no" takes beyond a "yes", as far as both were seen: nothing before the
// upstream has said no for the first time.
func (p *pace) extra() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(0, p.no.value()-p.yes.value())
}

// refusal is what a "no" takes in all, for those that we say without asking.
func (p *pace) refusal() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.no.value()
}

// refusalTime is how long after the credentials a refusal comes, by what it took until it
// was decided, or would have. It is one of a few times only, far apart, so that small
// differences say nothing. Without a delay nothing is hidden, and nobody waits.
func refusalTime(delay, limit, took time.Duration) time.Duration {
	if delay == 0 {
		return 0
	}
	for _, step := range []time.Duration{delay, delay * 5 / 2, delay * 5} {
		if took <= step {
			return min(step, limit)
		}
	}
	return limit
}

package proxy

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestRefusalTime(t *testing.T) {
	const ms = time.Millisecond
	const delay, limit = 2 * time.Second, 15 * time.Second
	for _, upstream := range []struct {
		name    string
		yes, no time.Duration
		want    time.Duration
	}{
		{"quick", 10 * ms, 15 * ms, delay},
		{"Dovecot's default delay", 10 * ms, 2050 * ms, 5 * time.Second},
		{"slow both ways", 1500 * ms, 3600 * ms, 5 * time.Second},
		{"very slow", 100 * ms, 9 * time.Second, 10 * time.Second},
		{"beyond all steps", 100 * ms, 12 * time.Second, limit},
	} {
		t.Run(upstream.name, func(t *testing.T) {
			var p pace
			p.noteYes(upstream.yes)
			p.noteNo(upstream.no, delay)
			wrong := refusalTime(delay, limit, upstream.no)
			right := refusalTime(delay, limit, upstream.yes+p.extra())
			unasked := refusalTime(delay, limit, p.refusal())
			if wrong != upstream.want || right != wrong || unasked != wrong {
				t.Errorf("a wrong password lasts %v, a right one %v, what isn't asked %v, want %v", wrong, right, unasked, upstream.want)
			}
		})
	}
}

// mfa.refusal_delay = "0s" is allowed, with a warning: then nobody waits for anything.
func TestRefusalTimeOff(t *testing.T) {
	for _, took := range []time.Duration{0, time.Millisecond, time.Minute} {
		if got := refusalTime(0, 15*time.Second, took); got != 0 {
			t.Errorf("what took %v lasts %v", took, got)
		}
	}
}

// With an upstream that answers within the delay, the first refusals of all are alike too.
func TestRefusalTimeAtFirst(t *testing.T) {
	for _, no := range []time.Duration{time.Millisecond, 1900 * time.Millisecond} {
		var p pace // nothing was seen
		right := refusalTime(2*time.Second, 15*time.Second, time.Millisecond+p.extra())
		wrong := refusalTime(2*time.Second, 15*time.Second, no)
		unasked := refusalTime(2*time.Second, 15*time.Second, p.refusal())
		if right != wrong || unasked != wrong {
			t.Errorf("a no takes %v: %v, %v and %v", no, wrong, right, unasked)
		}
	}
}

// One client's penalty doesn't make the upstream look slow, and old times are forgotten.
func TestPaceForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		p.noteYes(10 * time.Millisecond)
		p.noteNo(20*time.Millisecond, time.Second)
		p.noteNo(8*time.Second, time.Second)
		if extra := p.extra(); extra != 10*time.Millisecond {
			t.Errorf("extra: %v", extra)
		}
		for range 3 {
			time.Sleep(paceWindow + 1)
			p.noteYes(10 * time.Millisecond)
			p.noteNo(2*time.Second, time.Second)
		}
		if extra := p.extra(); extra != 1990*time.Millisecond {
			t.Errorf("extra, later: %v", extra)
		}
	})
}

func TestPaceTellsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		if p.noteNo(time.Second, 2*time.Second) {
			t.Error("told of a quick no")
		}
		if !p.noteNo(3*time.Second, 2*time.Second) || p.noteNo(3*time.Second, 2*time.Second) {
			t.Error("not told once")
		}
		time.Sleep(paceWindow)
		if !p.noteNo(3*time.Second, 2*time.Second) {
			t.Error("not told again later")
		}
	})
}

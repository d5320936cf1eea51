package relay

import (
	"sync"
	"testing"
	"time"
)

func TestCut(t *testing.T) {
	each(t, some2, some2[:1], func(t *testing.T, p plan) {
		for name, run := range map[string]func(*rig){
			"idle": func(r *rig) { stuckIdle(t, r); r.Cut() },
			"running": func(r *rig) {
				go r.upstream.Write(make([]byte, 16<<20))
				read(t, r.client, 1<<20)
				r.Cut()
			},
			"blocked": func(r *rig) {
				go r.upstream.Write(make([]byte, 16<<20))
				stuck(t, r)
				r.Cut()
			},
			"twice": func(r *rig) { r.Cut(); r.Cut() },
			"by many": func(r *rig) {
				var wg sync.WaitGroup
				for range 8 {
					wg.Go(r.Cut)
				}
				wg.Wait()
			},
			"before Relay": nil,
		} {
			t.Run(name, func(t *testing.T) {
				q := p
				if run == nil {
					q.before = func(r *rig) { r.Cut() }
				}
				r := relayed(t, q)
				if run != nil {
					run(r)
				}
				if got := r.ending(t, Cut, true); got.err != errCut {
					t.Errorf("error %v", got.err)
				}
				r.Cut() // after the end
				r.kick()
			})
		}
	})
}

func stuckIdle(t testing.TB, r *rig) {
	t.Helper()
	eventually(t, "the session idles", func() bool { return r.state.Load() == idle })
}

// inspect looks at a session while it idles, in the place of its pump.
func inspect(t testing.TB, r *rig, look func()) {
	t.Helper()
	eventually(t, "the session idles", func() bool { return r.state.CompareAndSwap(idle, running) })
	look()
	r.pump()
}

// TestCutRaces with Relay, with octets and with the session's own end.
func TestCutRaces(t *testing.T) {
	each(t, some2[:1], some2[:1], func(t *testing.T, p plan) {
		for i := range 200 {
			var cut sync.WaitGroup
			p.before = func(r *rig) { cut.Go(r.Cut) }
			r := relayed(t, p)
			switch i % 3 {
			case 0:
				r.client.half()
				r.upstream.half()
			case 1:
				r.upstream.reset()
			}
			cut.Wait()
			r.wait(t)
		}
	})
}

// TestEngineClose has the engine leave nothing behind, also when it is closed twice or never had a session.
func TestEngineClose(t *testing.T) {
	before := descriptors(t)
	for range 20 {
		e := &Engine{Limits: ample}
		t.Run("", func(t *testing.T) {
			r := relayed(t, plan{engine: e})
			write(t, r.client, []byte("x"))
			read(t, r.upstream, 1)
		})
		e.Close()
		e.Close()
	}
	new(Engine).Close()
	eventually(t, "the engines' descriptors are closed", func() bool { return descriptors(t) <= before+grown })
}

// TestDonePanics has a bug in Done, for which nothing may be closed twice: the descriptor's number and the slot
// may be another's by then.
func TestDonePanics(t *testing.T) {
	e := &Engine{Limits: ample}
	defer e.Close()
	t.Run("", func(t *testing.T) {
		keep := relayed(t, plan{engine: e})
		stuckIdle(t, keep)
		var once sync.Once
		over := make(chan struct{}, 8)
		r := relayed(t, plan{engine: e, done: func(End, error) {
			over <- struct{}{}
			once.Do(func() { panic("bug in Done") })
		}})
		r.Cut()
		<-over
		select { // a second time is what this is about
		case <-over:
			t.Error("Done was called again")
		case <-time.After(200 * time.Millisecond):
		}
		r.wait(t)
		for len(r.ends) > 0 {
			<-r.ends
		}
		if e.epoll == nil {
			return
		}
		e.epoll.mu.RLock()
		defer e.epoll.mu.RUnlock()
		seen := map[int32]bool{}
		for _, i := range e.epoll.free {
			if seen[i] {
				t.Errorf("slot %d is free twice", i)
			}
			seen[i] = true
		}
	})
}

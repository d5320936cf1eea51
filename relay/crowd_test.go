package relay

import (
	"crypto/tls"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestIdleCostsNothing counts goroutines; a session that idles has no timer either.
func TestIdleCostsNothing(t *testing.T) {
	e := &Engine{Limits: ample}
	defer e.Close()
	t.Run("", func(t *testing.T) {
		first := relayed(t, plan{engine: e})
		if first.slot < 0 {
			t.Skip("there is no epoll")
		}
		stuckIdle(t, first)
		before := runtime.NumGoroutine()
		for range 200 {
			r := relayed(t, plan{engine: e, client: tls.VersionTLS13})
			write(t, r.client, []byte("x"))
			read(t, r.upstream, 1)
			write(t, r.upstream, []byte("y"))
			read(t, r.client, 1)
			if r.timer != nil {
				t.Fatal("it has a timer")
			}
		}
		eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
	})
}

// TestComeAndGo has 5,000 sessions, some hundred at a time.
func TestComeAndGo(t *testing.T) {
	const atOnce, rounds = 250, 20
	e := &Engine{Limits: ample}
	defer e.Close()
	var before, goroutines int
	for round := range rounds {
		t.Run("", func(t *testing.T) {
			var wg sync.WaitGroup
			for i := range atOnce {
				p := plan{engine: e, wrap: transports[min(i%8, 1)^1].wrap}
				if i%10 == 0 {
					p.client = tls.VersionTLS13
				}
				r := relayed(t, p)
				wg.Go(func() {
					r.client.Write([]byte("question"))
					b := make([]byte, 8)
					r.upstream.Read(b)
					r.upstream.Write([]byte("answer"))
					r.client.Read(b)
					switch i % 5 {
					case 0:
						r.client.half()
						r.upstream.half()
					case 1:
						r.client.reset()
						r.upstream.Write([]byte("x"))
					case 2:
						r.upstream.reset()
					case 3:
						r.Cut()
					case 4:
						r.upstream.half()
						r.client.half()
					}
					select {
					case <-r.ends:
					case <-time.After(10 * time.Second):
						t.Errorf("session %d doesn't end", i)
					}
				})
			}
			wg.Wait()
		})
		if round == 0 {
			before, goroutines = descriptors(t), runtime.NumGoroutine()
		}
	}
	eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, "all descriptors are closed", func() bool { return descriptors(t) <= before })
	if e.epoll != nil {
		if n := len(e.epoll.slots); n > atOnce || len(e.epoll.free) != n {
			t.Errorf("%d slots, of which %d are free; want no more than %d, all free", n, len(e.epoll.free), atOnce)
		}
	}
}

// TestBackpressure has an upstream flood a client that doesn't read.
func TestBackpressure(t *testing.T) {
	each(t, some2, some2, func(t *testing.T, p plan) {
		p.small = true
		octets := noise(1, 512<<10)
		r := relayed(t, p)
		failed := make(chan error, 2)
		for _, f := range []*far{r.client, r.upstream} {
			go func() {
				_, err := f.Write(octets)
				failed <- err
			}()
		}
		stuck(t, r)
		inspect(t, r, func() {
			for _, side := range []*Side{&r.Session.Client, &r.Session.Upstream} {
				if n := len(side.Socket.out); n > bufferSize+16<<10 {
					t.Errorf("%d octets are kept", n)
				}
			}
		})
		for _, f := range []*far{r.client, r.upstream} {
			if err := same(read(t, f, len(octets)), octets); err != nil {
				t.Error(err)
			}
			if err := <-failed; err != nil {
				t.Error(err)
			}
		}
	})
}

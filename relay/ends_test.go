package relay

import (
	"crypto/tls"
	"fmt"
	"io"
	"testing"
)

// all reads to the end.
func all(t testing.TB, from *far) []byte {
	t.Helper()
	got, err := io.ReadAll(from)
	if err != nil {
		t.Fatalf("after %d octets: %v", len(got), err)
	}
	return got
}

// good fails unless TLS was ended with close_notify.
func good(t testing.TB, f *far) {
	t.Helper()
	if _, ok := f.stream.(*tls.Conn); ok && f.gate.fin.Load() {
		t.Error("FIN came without close_notify")
	}
}

func each(t *testing.T, clients, upstreams []uint16, run func(t *testing.T, p plan)) {
	for _, transport := range transports {
		for _, client := range clients {
			for _, upstream := range upstreams {
				t.Run(fmt.Sprintf("%s/%s/%s", transport.name, versions[client], versions[upstream]), func(t *testing.T) {
					run(t, plan{wrap: transport.wrap, client: client, upstream: upstream})
				})
			}
		}
	}
}

var (
	some3 = []uint16{0, tls.VersionTLS12, tls.VersionTLS13}
	some2 = []uint16{0, tls.VersionTLS13}
)

func TestClientEndsFirst(t *testing.T) {
	each(t, some3, some3, func(t *testing.T, p plan) {
		before := descriptors(t)
		up, down := noise(1, 300<<10), noise(2, 300<<10)
		r := relayed(t, p)
		go func() {
			r.client.Write(up)
			r.client.half()
		}()
		if err := same(all(t, r.upstream), up); err != nil {
			t.Error(err)
		}
		good(t, r.upstream)
		go func() { // it still has an answer
			r.upstream.Write(down)
			r.upstream.half()
		}()
		if err := same(all(t, r.client), down); err != nil {
			t.Error(err)
		}
		good(t, r.client)
		r.ending(t, ClientEnded, false)
		eventually(t, "only the far ends' descriptors are left", func() bool { return descriptors(t) <= before+2+grown })
	})
}

// grown is what the engine and the listener of the tests need.
const grown = 4

func TestUpstreamEndsFirst(t *testing.T) {
	each(t, some3, some3, func(t *testing.T, p plan) {
		down := noise(2, 300<<10)
		r := relayed(t, p)
		go func() {
			r.upstream.Write(down)
			r.upstream.half()
		}()
		if err := same(all(t, r.client), down); err != nil {
			t.Error(err)
		}
		good(t, r.client)
		write(t, r.client, []byte("nobody hears this"))
		r.client.half()
		if got := all(t, r.upstream); len(got) > 0 {
			t.Errorf("the upstream was told %q after its end", got)
		}
		good(t, r.upstream)
		r.ending(t, UpstreamEnded, false)
	})
}

// TestEndWithData has octets and FIN arrive together, of which edge-triggered epoll tells once; also before the session
// is relayed.
func TestEndWithData(t *testing.T) {
	each(t, some2, some2, func(t *testing.T, p plan) {
		for _, size := range []int{1, 1000, bufferSize - 1, bufferSize, bufferSize + 1} {
			for range 2 {
				octets := noise(3, size)
				send := func(from *far) {
					if size < 2000 {
						write(t, from, octets)
						from.half()
						return
					}
					go func() {
						from.Write(octets)
						from.half()
					}()
				}
				check := func(to *far) {
					if err := same(all(t, to), octets); err != nil {
						t.Fatal(err)
					}
					good(t, to)
				}
				r := relayed(t, p)
				send(r.client)
				check(r.upstream)
				r.upstream.half()
				r.ending(t, ClientEnded, false)

				r = relayed(t, p)
				send(r.upstream)
				check(r.client)
				r.client.half()
				r.ending(t, UpstreamEnded, false)

				p.before = func(r *rig) { send(r.upstream) }
				r = relayed(t, p)
				check(r.client)
				r.client.half()
				r.ending(t, UpstreamEnded, false)
				p.before = nil
			}
		}
	})
}

// TestTruncatedByClient has TLS end without close_notify, as many programs do: half a record is none, but
// what came before counts.
func TestTruncatedByClient(t *testing.T) {
	for name, extra := range map[string]int{"between records": 0, "in a header": 3, "in a record": 40} {
		t.Run(name, func(t *testing.T) {
			each(t, some3[1:], some2, func(t *testing.T, p plan) {
				r := relayed(t, p)
				write(t, r.client, []byte("one"))
				read(t, r.upstream, 3)
				r.client.gate.only(extra)
				write(t, r.client, noise(1, 1000))
				r.client.tcp.CloseWrite()
				if got := all(t, r.upstream); len(got) > 0 {
					t.Errorf("the upstream got %q of half a record", got)
				}
				good(t, r.upstream)
				write(t, r.upstream, []byte("answer"))
				r.upstream.half()
				if got := string(all(t, r.client)); got != "answer" {
					t.Errorf("the client got %q", got)
				}
				r.ending(t, ClientEnded, false)
			})
		})
	}
}

// TestTruncatedByUpstream has somebody cut the road to the upstream. The client isn't to take that for
// the upstream's own end.
func TestTruncatedByUpstream(t *testing.T) {
	for name, extra := range map[string]int{"between records": 0, "in a header": 3, "in a record": 40} {
		t.Run(name, func(t *testing.T) {
			each(t, some2, some3[1:], func(t *testing.T, p plan) {
				r := relayed(t, p)
				write(t, r.upstream, []byte("one"))
				read(t, r.client, 3)
				r.upstream.gate.only(extra)
				write(t, r.upstream, noise(1, 1000))
				r.upstream.tcp.CloseWrite()
				got, _ := io.ReadAll(r.client)
				if len(got) > 0 {
					t.Errorf("the client got %q of half a record", got)
				}
				if p.client != 0 && !r.client.gate.fin.Load() {
					t.Error("the client was told of a good end")
				}
				r.client.tcp.Close()
				r.ending(t, UpstreamEnded, true)
			})
		})
	}
}

// TestReset resets one side after so many octets of what lies below TLS.
func TestReset(t *testing.T) {
	each(t, some2, some2, func(t *testing.T, p plan) {
		before := descriptors(t)
		for _, after := range []int{0, 1, 4, 5, 6, 30, 500, 1399, 16383, 16384, 16500, 70000, 131072, 250000} {
			for _, end := range []End{ClientEnded, UpstreamEnded} {
				r := relayed(t, p)
				lost, left := r.client, r.upstream
				if end == UpstreamEnded {
					lost, left = left, lost
				}
				lost.gate.only(after)
				go func() {
					lost.Write(noise(1, 300<<10))
					lost.reset()
				}()
				got, _ := io.ReadAll(left)
				if len(got) > after {
					t.Errorf("%d octets came of %d", len(got), after)
				}
				r.ending(t, end, true)
				left.tcp.Close()
			}
		}
		eventually(t, "all descriptors are closed", func() bool { return descriptors(t) <= before+28*3+grown })
	})
}

// TestResetBlocked resets a side that takes nothing any more.
func TestResetBlocked(t *testing.T) {
	each(t, some2, some2, func(t *testing.T, p plan) {
		for _, end := range []End{ClientEnded, UpstreamEnded} {
			r := relayed(t, p)
			from, to := r.upstream, r.client
			if end == UpstreamEnded {
				from, to = to, from
			}
			go from.Write(make([]byte, 16<<20))
			stuck(t, r)
			to.reset()
			r.ending(t, end, true)
			from.tcp.Close()
		}
	})
}

// stuck waits until nothing moves any more.
func stuck(t testing.TB, r *rig) {
	t.Helper()
	var last int64 = -1
	quiet := 0
	eventually(t, "the session is blocked", func() bool {
		now := r.ToClient.Load() + r.FromClient.Load()
		if quiet++; now != last {
			last, quiet = now, 0
		}
		return now > 0 && quiet > 40
	})
}

// TestResetWhileHeld resets each side while the filter has the client wait.
func TestResetWhileHeld(t *testing.T) {
	each(t, some2, some2, func(t *testing.T, p plan) {
		p.filter = &gatekeeper{}
		r := relayed(t, p)
		write(t, r.client, []byte("a!b"))
		read(t, r.upstream, 2)
		r.upstream.reset()
		r.ending(t, UpstreamEnded, true)

		p.filter = &gatekeeper{}
		r = relayed(t, p)
		write(t, r.client, []byte("a!b"))
		read(t, r.upstream, 2)
		r.client.reset()
		r.upstream.Write([]byte("go on"))
		r.upstream.Write([]byte("."))
		r.ending(t, ClientEnded, true)
	})
}

package relay

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// A duplex is two pipes: one that can be half closed.
type (
	duplex   struct{ net.Conn } // what it reads from
	duplexed struct {
		duplex
		out net.Conn
	}
)

func (d *duplexed) Write(p []byte) (int, error) { return d.out.Write(p) }
func (d *duplexed) CloseWrite() error           { return d.out.Close() }
func (d *duplexed) Close() error                { return errors.Join(d.Conn.Close(), d.out.Close()) }

func duplexPair() (a, b *duplexed) {
	r1, w1 := net.Pipe()
	r2, w2 := net.Pipe()
	return &duplexed{duplex{r1}, w2}, &duplexed{duplex{r2}, w1}
}

// TestDeadlines has exact times, on pipes.
func TestDeadlines(t *testing.T) {
	limits := Limits{
		Idle: 31 * time.Minute, Write: 2 * time.Minute, Hold: 5 * time.Minute, HalfClient: 30 * time.Second, HalfUpstream: 20 * time.Second,
	}
	for name, test := range map[string]struct {
		run  func(client, upstream *duplexed)
		want time.Duration
		end  End
	}{
		"idle from the start": {func(*duplexed, *duplexed) {}, 31 * time.Minute, TimedOut},
		"idle after the client's word": {func(client, _ *duplexed) {
			time.Sleep(7 * time.Second)
			client.Write([]byte("x"))
		}, 31*time.Minute + 7*time.Second, TimedOut},
		"idle after the upstream's word": {func(_, upstream *duplexed) {
			time.Sleep(30 * time.Minute)
			upstream.Write([]byte("x"))
		}, 61 * time.Minute, TimedOut},
		"the client half closed": {func(client, _ *duplexed) {
			time.Sleep(3 * time.Second)
			client.CloseWrite()
		}, 33 * time.Second, ClientEnded},
		"the client half closed, and the upstream still speaks": {func(client, upstream *duplexed) {
			client.CloseWrite()
			time.Sleep(25 * time.Second)
			upstream.Write([]byte("x"))
		}, 55 * time.Second, ClientEnded},
		"the upstream half closed": {func(client, upstream *duplexed) {
			time.Sleep(3 * time.Second)
			upstream.CloseWrite()
			time.Sleep(10 * time.Second)
			client.Write([]byte("nobody listens"))
		}, 23 * time.Second, UpstreamEnded},
		"held": {func(client, _ *duplexed) {
			time.Sleep(10 * time.Second)
			client.Write([]byte("!x"))
		}, 5*time.Minute + 10*time.Second, TimedOut},
		"held, and the upstream speaks": {func(client, upstream *duplexed) {
			client.Write([]byte("!x"))
			time.Sleep(4 * time.Minute)
			upstream.Write([]byte("not yet"))
		}, 9 * time.Minute, TimedOut},
		"released": {func(client, upstream *duplexed) {
			client.Write([]byte("!x"))
			time.Sleep(4 * time.Minute)
			upstream.Write([]byte("."))
		}, 35 * time.Minute, TimedOut},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, upstream, finish := piped(limits)
				go io.Copy(io.Discard, client)
				go io.Copy(io.Discard, upstream)
				began := time.Now()
				go test.run(client, upstream)
				if got := <-finish; got.end != test.end || got.err != errTimeout {
					t.Errorf("end %d, %v; want %d", got.end, got.err, test.end)
				}
				if took := time.Since(began); took != test.want {
					t.Errorf("after %v; want %v", took, test.want)
				}
				client.Close()
				upstream.Close()
			})
		})
	}
}

// TestWriteDeadline has a side take nothing. It gets more time when it says something.
func TestWriteDeadline(t *testing.T) {
	limits := Limits{Idle: time.Hour, Write: 2 * time.Minute, Hold: time.Hour, HalfClient: time.Hour, HalfUpstream: time.Hour}
	for name, test := range map[string]struct {
		speaks bool // after a minute
		want   time.Duration
	}{
		"silent": {false, 2 * time.Minute},
		"speaks": {true, 3 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, upstream, finish := piped(limits)
				from, to := upstream, client
				for range 2 {
					began := time.Now()
					go from.Write([]byte("x"))
					go io.Copy(io.Discard, from)
					if test.speaks {
						time.Sleep(time.Minute)
						to.Write([]byte("y"))
					}
					if got := <-finish; got.end != TimedOut {
						t.Errorf("end %d, %v", got.end, got.err)
					}
					if took := time.Since(began); took != test.want {
						t.Errorf("after %v; want %v", took, test.want)
					}
					client.Close()
					upstream.Close()
					client, upstream, finish = piped(limits)
					from, to = client, upstream
				}
				client.Close()
				upstream.Close()
				<-finish
			})
		})
	}
}

func piped(limits Limits) (client, upstream *duplexed, finish chan outcome) {
	engine := &Engine{Limits: limits}
	client, ownClient := duplexPair()
	upstream, ownUpstream := duplexPair()
	finish = make(chan outcome, 1)
	engine.Relay(&Session{
		Client: Side{Socket: &Socket{Conn: ownClient}}, Upstream: Side{Socket: &Socket{Conn: ownUpstream}},
		Filter: &gatekeeper{}, Done: func(end End, err error) { finish <- outcome{end, err} },
	})
	return client, upstream, finish
}

// TestHoldBegins has the upstream take its time before it can answer: only then does Hold run.
func TestHoldBegins(t *testing.T) {
	limits := Limits{Idle: time.Hour, Write: 5 * time.Minute, Hold: time.Minute, HalfClient: time.Hour, HalfUpstream: time.Hour}
	synctest.Test(t, func(t *testing.T) {
		client, upstream, finish := piped(limits)
		go io.Copy(io.Discard, client)
		began := time.Now()
		client.Write([]byte("one!two"))
		time.Sleep(90 * time.Second)
		read(t, upstream, 4)
		if got := <-finish; got.end != TimedOut {
			t.Errorf("end %d, %v", got.end, got.err)
		}
		if took := time.Since(began); took != 150*time.Second {
			t.Errorf("it ended after %v; want 90 s, and Hold", took)
		}
		client.Close()
		upstream.Close()
	})
}

// TestDeadlinesOfSockets is without exact times: what ends, ends.
func TestDeadlinesOfSockets(t *testing.T) {
	const soon = 100 * time.Millisecond
	for name, test := range map[string]struct {
		limit func(*Limits)
		run   func(*rig)
		end   End
	}{
		"idle":     {func(l *Limits) { l.Idle = soon }, func(*rig) {}, TimedOut},
		"write":    {func(l *Limits) { l.Write = soon }, func(r *rig) { go r.upstream.Write(make([]byte, 16<<20)) }, TimedOut},
		"upload":   {func(l *Limits) { l.Write = soon }, func(r *rig) { go r.client.Write(make([]byte, 16<<20)) }, TimedOut},
		"hold":     {func(l *Limits) { l.Hold = soon }, func(r *rig) { r.client.Write([]byte("!x")) }, TimedOut},
		"client":   {func(l *Limits) { l.HalfClient = soon }, func(r *rig) { r.client.half() }, ClientEnded},
		"upstream": {func(l *Limits) { l.HalfUpstream = soon }, func(r *rig) { r.upstream.half() }, UpstreamEnded},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, some2, some2, func(t *testing.T, p plan) {
				p.filter, p.limits = &gatekeeper{}, ample
				test.limit(&p.limits)
				r := relayed(t, p)
				test.run(r)
				r.ending(t, test.end, true)
			})
		})
	}
}

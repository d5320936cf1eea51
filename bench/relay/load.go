package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// parallel is how many sessions do something at a time, where nothing else is said.
const parallel = 4

// Load is told what to do by the benchmark's process, one call at a time (net/rpc). It
// holds the sessions that it has opened.
type Load struct {
	believe *tls.Config
	clients []*client
	tickets map[string]tls.ClientSessionCache // by address
}

// Logins says which logins to make.
type Logins struct {
	Address string
	Count   int
	Hybrid  bool // X25519MLKEM768 is offered besides X25519
	Resume  bool // resume the TLS session of an earlier login that said so, where the server lets us
}

// Handshakes says what became of them.
type Handshakes struct {
	Hybrid  int // that used X25519MLKEM768
	Resumed int
}

// Logins logs in and out.
func (l *Load) Logins(order Logins, reply *Handshakes) error {
	config := l.believe.Clone()
	if order.Hybrid {
		config.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768, tls.X25519}
	}
	if order.Resume {
		if l.tickets[order.Address] == nil {
			l.tickets[order.Address] = tls.NewLRUClientSessionCache(1)
		}
		config.ClientSessionCache = l.tickets[order.Address]
	}
	var hybrid, resumed atomic.Int64
	err := spread(order.Count, parallel, func(i int) error {
		state, err := logInAndOut(order.Address, i, config)
		if err != nil {
			return err
		}
		if state.CurveID == tls.X25519MLKEM768 {
			hybrid.Add(1)
		}
		if state.DidResume {
			resumed.Add(1)
		}
		return nil
	})
	*reply = Handshakes{int(hybrid.Load()), int(resumed.Load())}
	return err
}

func logInAndOut(address string, i int, config *tls.Config) (tls.ConnectionState, error) {
	c, err := dial(address, config)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer c.Close()
	state := c.Conn.(*tls.Conn).ConnectionState()
	if err := c.login(user(i)); err != nil {
		return state, err
	}
	return state, c.logout()
}

func user(i int) string { return fmt.Sprintf("plain%06d@example.org", i) }

// Open says which sessions to open.
type Open struct {
	Address string
	Count   int
	Octets  []int64 // that each then reads, one command each
	Idle    bool    // and goes idle
}

// Open logs in and holds the sessions.
func (l *Load) Open(order Open, _ *struct{}) error {
	if len(l.clients) > 0 {
		return fmt.Errorf("%d sessions are open", len(l.clients))
	}
	config := l.believe.Clone()
	config.DynamicRecordSizingDisabled = true // as other clients do
	l.clients = make([]*client, order.Count)
	return spread(order.Count, parallel, func(i int) error {
		c, err := dial(order.Address, config)
		if err != nil {
			return err
		}
		l.clients[i] = c
		if err := c.login(user(i)); err != nil {
			return err
		}
		for _, n := range order.Octets {
			if err := c.down(n); err != nil {
				return err
			}
		}
		if order.Idle {
			return c.idle()
		}
		return nil
	})
}

// Down has all sessions read so many octets each, at once.
func (l *Load) Down(octets int64, _ *struct{}) error {
	return spread(len(l.clients), len(l.clients), func(i int) error { return l.clients[i].down(octets) })
}

// Up has all sessions append a message of so many octets each, at once.
func (l *Load) Up(octets int64, _ *struct{}) error {
	return spread(len(l.clients), len(l.clients), func(i int) error { return l.clients[i].up(octets) })
}

// Append has all sessions end their IDLE, append a message and go idle again.
func (l *Load) Append(octets int64, _ *struct{}) error {
	return spread(len(l.clients), parallel, func(i int) error {
		c := l.clients[i]
		if err := c.done(); err != nil {
			return err
		}
		if err := c.up(octets); err != nil {
			return err
		}
		return c.idle()
	})
}

// Close drops all sessions.
func (l *Load) Close(struct{}, *struct{}) error {
	for _, c := range l.clients {
		if c != nil {
			c.Close()
		}
	}
	l.clients = nil
	return nil
}

// Noops says how many round trips to make, by turns through a proxy and without it.
type Noops struct {
	Address, Direct string
	Count           int
}

// RoundTrips are medians.
type RoundTrips struct{ Through, Direct time.Duration }

// Noop measures one session's.
func (l *Load) Noop(order Noops, reply *RoundTrips) error {
	through, err := signIn(order.Address, l.believe)
	if err != nil {
		return err
	}
	defer through.Close()
	direct, err := signIn(order.Direct, nil)
	if err != nil {
		return err
	}
	defer direct.Close()
	var took [2][]time.Duration
	for range order.Count {
		for i, c := range []*client{through, direct} {
			began := time.Now()
			if err := c.do("NOOP"); err != nil {
				return err
			}
			took[i] = append(took[i], time.Since(began))
		}
	}
	*reply = RoundTrips{middle(took[0]), middle(took[1])}
	return nil
}

func signIn(address string, config *tls.Config) (*client, error) {
	c, err := dial(address, config)
	if err != nil {
		return nil, err
	}
	if err := c.login("plain@example.org"); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func middle(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// spread calls do for 0 to n-1, several at a time, and returns an error of one of them.
func spread(n, workers int, do func(i int) error) error {
	var next atomic.Int64
	var all sync.WaitGroup
	failed := make([]error, workers)
	for w := range workers {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed[w] == nil; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					failed[w] = fmt.Errorf("session %d of %d: %w", i+1, n, err)
				}
			}
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

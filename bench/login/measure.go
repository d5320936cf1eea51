package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// The proxy tells its store of last uses so often, see auth.Authenticator.Run.
	writeEvery = 30 * time.Second
	settling   = 20 * time.Millisecond // until the audit of a block of logins is written
)

// A login is what the audit must know: a name, and the factor that let it in.
type login struct{ account, factor string }

// A measurement is one run.
type measurement struct {
	settings
	warden *warden
	people map[kind][]*person
	next   map[kind]int

	blocks map[kind][]time.Duration // CPU of each round's logins
	wall   time.Duration            // of all blocks

	// What is written of logins later, in the background.
	pending  int // logins that it hasn't happened for
	written  int // logins that it was measured for
	deferred time.Duration

	mu   sync.Mutex
	done map[login]int
}

// run warms up and takes the rounds.
func (m *measurement) run(ctx context.Context) error {
	m.next, m.blocks = make(map[kind]int), make(map[kind][]time.Duration)
	if err := m.warmUp(ctx); err != nil {
		return err
	}
	m.deferred = 0 // it was the warm-up's
	for range m.rounds {
		for _, i := range rand.Perm(len(kinds)) {
			if err := m.block(ctx, kinds[i]); err != nil {
				return err
			}
		}
	}
	return m.awaitWrite(ctx, m.nextWrite())
}

// warmUp has those sign in by code who are to have a grant, or whose first login by code
// isn't what is measured.
func (m *measurement) warmUp(ctx context.Context) error {
	for _, k := range []kind{grant, code} {
		for _, p := range m.people[k] {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := m.signIn(firstCode, p); err != nil {
				return err
			}
		}
	}
	return m.awaitWrite(ctx, m.nextWrite())
}

// block measures one kind's logins of a round.
func (m *measurement) block(ctx context.Context, k kind) error {
	if next := m.nextWrite(); time.Until(next) < time.Second {
		if err := m.awaitWrite(ctx, next); err != nil {
			return err
		}
	}
	first := m.next[k]
	people := m.people[k][first : first+m.logins]
	m.next[k] = first + m.logins

	began := time.Now()
	before, err := m.warden.CPU()
	if err != nil {
		return err
	}
	if err := m.signInAll(k, people); err != nil {
		return err
	}
	m.wall += time.Since(began)
	time.Sleep(settling)
	after, err := m.warden.CPU()
	if err != nil {
		return err
	}
	m.blocks[k] = append(m.blocks[k], after-before)
	if k != observed {
		m.pending += len(people)
	}
	return ctx.Err()
}

func (m *measurement) signInAll(k kind, people []*person) error {
	todo := make(chan *person)
	failed := make([]error, m.parallel)
	var workers sync.WaitGroup
	for i := range failed {
		workers.Go(func() {
			for p := range todo {
				if err := m.signIn(k, p); err != nil && failed[i] == nil {
					failed[i] = err
				}
			}
		})
	}
	for _, p := range people {
		todo <- p
	}
	close(todo)
	workers.Wait()
	if i := slices.IndexFunc(failed, func(err error) bool { return err != nil }); i >= 0 {
		return failed[i]
	}
	return nil
}

func (m *measurement) signIn(k kind, p *person) error {
	secret := password
	switch k {
	case appPassword:
		secret = p.appPassword
	case code, firstCode:
		digits, err := p.code()
		if err != nil {
			return fmt.Errorf("making a code: %w", err)
		}
		secret += digits
	}
	if err := m.warden.signIn(p.name, secret); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done[login{p.name, string(k.factor)}]++
	return nil
}

// nextWrite is when the proxy next tells its store of last uses.
func (m *measurement) nextWrite() time.Time {
	return m.warden.started.Add((time.Since(m.warden.started)/writeEvery + 1) * writeEvery)
}

// awaitWrite waits until that is over, and takes it down for the logins since the last time.
func (m *measurement) awaitWrite(ctx context.Context, at time.Time) error {
	if m.quick {
		return ctx.Err()
	}
	before, err := m.warden.CPU()
	if err != nil {
		return err
	}
	last := before
	for {
		const look = 500 * time.Millisecond
		select {
		case <-time.After(max(time.Until(at), 0) + look):
		case <-ctx.Done():
			return ctx.Err()
		}
		now, err := m.warden.CPU()
		if err != nil {
			return err
		}
		if now-last < look/50 && time.Since(at) > 2*look { // it rests
			m.deferred += now - before
			m.written += m.pending
			m.pending = 0
			return nil
		}
		last = now
	}
}

package auth

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
)

// flights lets attempts that bring the same secret with a fresh code from the same
// place go one after another: of a mail program's parallel connections one is
// verified, and the others wait for what comes of it. It spares the upstream the
// same question and the others a lost race; that a code counts once doesn't rest on it.
type flights struct {
	mu     sync.Mutex
	flying map[flightKey]*flight
}

type flightKey struct {
	account string
	network netip.Prefix
	secret  string // a keyed tag
}

// A flight is one attempt on its way, the leader of those that wait for it.
type flight struct {
	of      *flights
	key     flightKey
	landed  chan struct{}
	refused *Verdict // of the leader, once landed; nil: accepted or given up
}

// lead returns once no other attempt with the key is on its way: with a flight that
// the caller must land, or with the refusal that the one before met.
func (fs *flights) lead(ctx context.Context, key flightKey) (mine *flight, refused *Verdict, waited bool, err error) {
	for ; ; waited = true {
		ahead, mine := fs.takeOff(key)
		if ahead == nil {
			return mine, nil, waited, nil
		}
		select {
		case <-ahead.landed:
			if ahead.refused != nil {
				return nil, ahead.refused, true, nil
			}
		case <-ctx.Done():
			return nil, nil, true, fmt.Errorf("auth: waiting for the same login on another connection: %w", ctx.Err())
		}
	}
}

// takeOff returns the flight ahead or, where there is none, the caller's own.
func (fs *flights) takeOff(key flightKey) (ahead, mine *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if ahead = fs.flying[key]; ahead != nil {
		return ahead, nil
	}
	if fs.flying == nil {
		fs.flying = make(map[flightKey]*flight)
	}
	mine = &flight{of: fs, key: key, landed: make(chan struct{})}
	fs.flying[key] = mine
	return nil, mine
}

// land ends the flight, if it is one that hasn't landed; those that wait share a refusal.
func (f *flight) land(refused *Verdict) {
	if f == nil {
		return
	}
	f.of.mu.Lock()
	defer f.of.mu.Unlock()
	if f.of.flying[f.key] == f {
		delete(f.of.flying, f.key)
		f.refused = refused
		close(f.landed)
	}
}

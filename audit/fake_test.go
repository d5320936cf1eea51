package audit

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"
)

// A fakeStore is a Source in memory, with the purging and chaining that a store does.
type fakeStore struct {
	mu     sync.Mutex
	events []Event
	head   Hash
	lastID int64
	marks  map[string]string
	detail string                // of the events that are added
	failed error                 // what every method returns, where not nil
	asked  func(context.Context) // called by Events before it looks
	looked func()                // see then
}

func newFakeStore() *fakeStore {
	return &fakeStore{marks: make(map[string]string)}
}

// add appends n events.
func (s *fakeStore) add(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.lastID++
		e := Event{
			ID: s.lastID, Time: time.UnixMicro(1_700_000_000_000_000 + s.lastID).UTC(), Kind: "login", Outcome: Refused,
			Session: "s" + strconv.FormatInt(s.lastID, 10), Account: "alice", Source: "192.0.2.1", Program: "Mail <1> & \u2028",
			Factor: "none", Reason: "wrong-code", Rule: "r", Detail: s.detail,
		}
		e.Hash = Chain(s.head, e)
		s.head = e.Hash
		s.events = append(s.events, e)
	}
}

// purge removes the n oldest events.
func (s *fakeStore) purge(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.events[n-1]
	s.marks[ChainMark] = FormatMark(last.ID, last.Hash)
	s.events = s.events[n:]
}

// rechain computes all hashes anew, as who owns the store can.
func (s *fakeStore) rechain() {
	s.head = Hash{}
	for i := range s.events {
		s.events[i].Hash = Chain(s.head, s.events[i])
		s.head = s.events[i].Hash
	}
}

func (s *fakeStore) Events(ctx context.Context, f Filter) ([]Event, error) {
	if s.asked != nil {
		s.asked(ctx)
	}
	events, looked, err := s.look(ctx, f)
	if looked != nil {
		looked()
	}
	return events, err
}

func (s *fakeStore) look(ctx context.Context, f Filter) (events []Event, looked func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fails(ctx); err != nil {
		return nil, nil, err
	}
	if !f.Oldest || f.Limit < 1 {
		return nil, nil, fmt.Errorf("a filter of %+v", f)
	}
	for _, e := range s.events {
		if e.ID > f.After && len(events) < f.Limit {
			events = append(events, e)
		}
	}
	looked, s.looked = s.looked, nil
	return events, looked, nil
}

// then has f called once, between the next look at the events and the answer.
func (s *fakeStore) then(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked = f
}

func (s *fakeStore) Mark(ctx context.Context, name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.marks[name], s.fails(ctx)
}

func (s *fakeStore) SetMark(ctx context.Context, name, value string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fails(ctx); err != nil {
		return err
	}
	s.marks[name] = value
	return nil
}

func (s *fakeStore) fails(ctx context.Context) error {
	if s.failed != nil {
		return s.failed
	}
	return ctx.Err()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

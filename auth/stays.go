package auth

import (
	"context"
	"sync"
	"time"
)

// stays knows which grants have sessions under them now, and when the last one
// ended. The store learns it at each write, not at each session.
type stays struct {
	mu      sync.Mutex
	byGrant map[string]*stay
}

type stay struct {
	open    int       // sessions
	last    time.Time // the latest use that we know of
	written bool      // to the store, since the last change
}

// begin adds a session under the grants.
func (s *stays) begin(grants []string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byGrant == nil {
		s.byGrant = make(map[string]*stay)
	}
	for _, grant := range grants {
		if s.byGrant[grant] == nil {
			s.byGrant[grant] = new(stay)
		}
		s.byGrant[grant].open++
		s.byGrant[grant].use(now)
	}
}

// end takes one away.
func (s *stays) end(grants []string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, grant := range grants {
		if st := s.byGrant[grant]; st != nil && st.open > 0 {
			st.open--
			st.use(now)
		}
	}
}

// lastUsed returns when the grant was last used: now, as long as a session is open.
func (s *stays) lastUsed(g Grant, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch st := s.byGrant[g.ID]; {
	case st == nil:
		return g.LastUsed
	case st.open > 0:
		return now
	case st.last.After(g.LastUsed):
		return st.last
	}
	return g.LastUsed
}

// write tells the store all last uses that it doesn't know. What it could not be
// told stays for the next time.
func (s *stays) write(ctx context.Context, store Grants, now time.Time) error {
	used := s.unwritten(now)
	if len(used) == 0 {
		return nil
	}
	if err := store.TouchGrants(ctx, used); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for grant, last := range used {
		if st := s.byGrant[grant]; st != nil && st.last.Equal(last) {
			st.written = true
		}
	}
	return nil
}

// unwritten also forgets what was written the time before: whoever reads the store now
// finds it there, and nobody still holds what stood there earlier.
func (s *stays) unwritten(now time.Time) map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := make(map[string]time.Time)
	for grant, st := range s.byGrant {
		if st.open > 0 {
			st.use(now)
		}
		if st.written {
			delete(s.byGrant, grant)
			continue
		}
		used[grant] = st.last
	}
	return used
}

func (st *stay) use(now time.Time) { st.last, st.written = now, false }

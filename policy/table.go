package policy

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	maxCached = 200_000 // entries of one table that a flood of new keys may push out
	maxHeld   = 64_000  // entries of one table that it may not
	shardsOf  = 64      // locks of one table
	looks     = 4       // held entries that are looked at for each one added
)

// keeping is how much the loss of an entry would matter.
type keeping int

const (
	forgotten keeping = iota // says nothing: as good as a fresh one
	cached                   // may go when room is short
	held                     // penalises somebody, who must not get free by a flood of new keys
	pinned                   // has attempts in flight, whose number the callers bound
)

// An entry is a table's memory of one key.
type entry interface {
	keep(now time.Time) keeping
}

// A table remembers entries by key within bounds. No bounded cache survives a flood
// of new keys, so those that may not be lost are in maps of their own; when
// these are full, newcomers make do with the cache and nobody is let go.
type table[K comparable, E entry] struct {
	fresh  func() E
	seed   maphash.Seed
	cache  *otter.Cache[K, E]
	room   int // held entries in one shard
	shards [shardsOf]shard[K, E]
}

// A shard is the lock for its keys, and those of them that must not be lost.
type shard[K comparable, E entry] struct {
	mu   sync.Mutex
	kept map[K]E
}

// newTable returns a table of at most size cached and about room held entries.
// An entry in the cache goes when it wasn't used for so long.
func newTable[K comparable, E entry](size, room int, idle time.Duration, fresh func() E) *table[K, E] {
	t := &table[K, E]{
		fresh: fresh,
		seed:  maphash.MakeSeed(),
		cache: otter.Must(&otter.Options[K, E]{
			MaximumSize:      size,
			ExpiryCalculator: otter.ExpiryAccessing[K, E](idle),
			Clock:            clock{},
		}),
		room: max(1, room/shardsOf),
	}
	for i := range t.shards {
		t.shards[i].kept = make(map[K]E)
	}
	return t
}

// with calls do with the key's entry, or a fresh one, under the key's lock, and
// then keeps the entry as its new state asks. do must not use the table.
func (t *table[K, E]) with(key K, now time.Time, do func(E)) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, known := s.kept[key]
	if !known {
		if e, known = t.cache.GetIfPresent(key); !known {
			e = t.fresh()
		}
	}
	do(e)
	t.put(s, key, e, now)
}

// look calls do with the key's entry, or a fresh one, under the key's lock. It leaves
// the table as it was: do must not change the entry, nor does a look count as a
// use that would keep it longer.
func (t *table[K, E]) look(key K, do func(E)) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, is := s.kept[key]; is {
		do(e)
	} else if cached, is := t.cache.GetEntryQuietly(key); is {
		do(cached.Value)
	} else {
		do(t.fresh())
	}
}

func (t *table[K, E]) shard(key K) *shard[K, E] {
	return &t.shards[maphash.Comparable(t.seed, key)%shardsOf]
}

// put keeps the entry as it asks. One that is kept may be in the cache as well, the
// same one, so that an attempt in flight doesn't cost the cache two writes.
func (t *table[K, E]) put(s *shard[K, E], key K, e E, now time.Time) {
	where := e.keep(now)
	if where == held || where == pinned {
		if _, is := s.kept[key]; is {
			return
		}
		t.tidy(s, now)
		if where == pinned || len(s.kept) < t.room {
			s.kept[key] = e
			return
		}
	}
	delete(s.kept, key)
	_, is := t.cache.GetIfPresent(key)
	switch {
	case where == forgotten && is:
		t.cache.Invalidate(key)
	case where != forgotten && !is:
		t.cache.Set(key, e)
	}
}

// tidy looks at a few kept entries, anywhere since a map's order is random, and
// lets those go whose time is over. More are looked at than are added, so
// what has ended can't pile up, and no caller pays for a full sweep.
func (t *table[K, E]) tidy(s *shard[K, E], now time.Time) {
	n := 0
	for key, e := range s.kept {
		if where := e.keep(now); where == cached || where == forgotten {
			t.put(s, key, e, now)
		}
		if n++; n == looks {
			return
		}
	}
}

// clock has otter expire entries while it is used and start no goroutine for it.
type clock struct{}

func (clock) NowNano() int64                      { return time.Now().UnixNano() }
func (clock) Tick(time.Duration) <-chan time.Time { return nil }

package policy

import (
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	shardsOf = 256 // locks of one table
	looks    = 5   // entries that are looked at to find one that may go
)

// keeping is how much the loss of an entry would matter.
type keeping uint8

const (
	forgotten keeping = iota // says nothing: as good as a fresh one
	cached                   // may go when room is short
	held                     // penalises somebody, who must not get free by a flood of new keys
)

// An entry is a table's memory of one key.
type entry[E any] interface {
	*E
	// keep says how much its loss would matter, and when it last changed, in seconds since
	// 1970: of those that may go, the oldest does.
	keep(now time.Time) (keeping, uint32)
}

// A table remembers entries by key within bounds. Keys are hashes that strangers can't compute.
// No bounded memory survives a flood of new keys, so entries that may not be lost don't go for
// newcomers. They may take half of the room; when they have, newcomers make do with being
// cached, and nobody is let go.
type table[E any, P entry[E]] struct {
	size, room int // of a shard: entries, and of these held ones
	entries    atomic.Int64
	shards     [shardsOf]shard[E, P]
}

// newTable returns a table of at most about size entries, of which room may be held.
func newTable[E any, P entry[E]](size, room int) *table[E, P] {
	t := &table[E, P]{size: max(2, size/shardsOf)}
	t.room = min(max(1, room/shardsOf), t.size-1)
	return t
}

// with calls do with the key's entry, or a fresh one, and with its attempts in flight, under the
// key's lock, and then keeps the entry as its new state asks. do must not use the table.
func (t *table[E, P]) with(key uint64, now time.Time, do func(*E, *flying)) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flies = s.flying[key]
	if i, known := s.find(key); known {
		do(&s.entries[i], &s.flies)
		t.keep(s, i, now)
	} else {
		s.entry = *new(E)
		do(&s.entry, &s.flies)
		t.add(s, key, now)
	}
	s.keepFlying(key)
}

// look calls do with the key's entry, or a fresh one, under the key's lock. It leaves the table
// as it was: do must not change what it is given.
func (t *table[E, P]) look(key uint64, do func(*E, *flying)) {
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flies = s.flying[key]
	s.entry = *new(E)
	if i, known := s.find(key); known {
		s.entry = s.entries[i]
	}
	do(&s.entry, &s.flies)
}

// len returns how many entries there are.
func (t *table[E, P]) len() int { return int(t.entries.Load()) }

func (t *table[E, P]) shard(key uint64) *shard[E, P] { return &t.shards[key%shardsOf] }

// keep keeps a known entry as it asks.
func (t *table[E, P]) keep(s *shard[E, P], i int, now time.Time) {
	where, last := P(&s.entries[i]).keep(now)
	if where == forgotten {
		t.remove(s, i)
		return
	}
	s.set(i, t.fitting(s, s.places[i].as, where, now))
	s.places[i].last = last
}

// add keeps the fresh entry in use as it asks. In a full shard another goes for it.
func (t *table[E, P]) add(s *shard[E, P], key uint64, now time.Time) {
	where, last := P(&s.entry).keep(now)
	if where == forgotten {
		return
	}
	for s.count >= t.size {
		if i := s.review(now); i >= 0 {
			t.remove(s, i)
		}
	}
	where = t.fitting(s, forgotten, where, now)
	s.makeRoom(t.size)
	i, _ := s.find(key)
	s.places[i].key, s.places[i].last, s.entries[i] = key, last, s.entry
	s.set(i, where)
	s.count++
	t.entries.Add(1)
}

func (t *table[E, P]) remove(s *shard[E, P], i int) {
	s.remove(i)
	s.count--
	t.entries.Add(-1)
}

// fitting is what an entry becomes that was kept in one way and asks for another: where there is
// no room for one more that is held, it is cached.
func (t *table[E, P]) fitting(s *shard[E, P], was, asks keeping, now time.Time) keeping {
	if asks != held || was == held {
		return asks
	}
	if s.held >= t.room {
		s.review(now)
	}
	if s.held >= t.room {
		return cached
	}
	return held
}

// A place of a hash table with linear probing. What a search and the choice of who goes read stands
// apart from the entries: neighbours share a line of the processor's cache.
type place struct {
	key  uint64
	last uint32  // when the entry last changed, in seconds since 1970
	as   keeping // forgotten: the place is free
}

// A shard is the lock for its keys, with what is known of them. Its hash table is two thirds full
// when no more fits.
type shard[E any, P entry[E]] struct {
	mu      sync.Mutex
	places  []place
	entries []E
	count   int
	held    int
	flying  map[uint64]flying // attempts in flight, whose number the callers bound

	entry E      // the one in use, unless it has a place; here, so that using it allocates nothing
	flies flying // and its attempts in flight
}

// find returns the key's place, or where there is none the free one where it belongs.
func (s *shard[E, P]) find(key uint64) (i int, known bool) {
	if len(s.places) == 0 {
		return 0, false
	}
	for i = s.home(key); s.places[i].as != forgotten; i = s.after(i) {
		if s.places[i].key == key {
			return i, true
		}
	}
	return i, false
}

// home is where the search for a key begins: a share of the length as large as the key's share of
// all. Its low bits have told the shard already.
func (s *shard[E, P]) home(key uint64) int {
	home, _ := bits.Mul64(key, uint64(len(s.places)))
	return int(home)
}

func (s *shard[E, P]) after(i int) int {
	if i++; i < len(s.places) {
		return i
	}
	return 0
}

// makeRoom sees to it that there is a free place, and one more where searches end.
func (s *shard[E, P]) makeRoom(size int) {
	n := len(s.places)
	if s.count < n*2/3 {
		return
	}
	places, entries := s.places, s.entries
	n = min(max(8, 2*n), size*3/2+2)
	s.places, s.entries = make([]place, n), make([]E, n)
	for i, from := range places {
		if from.as != forgotten {
			j, _ := s.find(from.key)
			s.places[j], s.entries[j] = from, entries[i]
		}
	}
}

// remove frees a place. Those after it that would no longer be found move up.
func (s *shard[E, P]) remove(i int) {
	s.set(i, forgotten)
	for j := s.after(i); s.places[j].as != forgotten; j = s.after(j) {
		if s.distance(s.home(s.places[j].key), j) >= s.distance(i, j) {
			s.places[i], s.entries[i] = s.places[j], s.entries[j]
			i = j
		}
	}
	s.places[i], s.entries[i] = place{}, *new(E)
}

// distance is how many steps a search takes from one place to another.
func (s *shard[E, P]) distance(from, to int) int {
	if to < from {
		to += len(s.places)
	}
	return to - from
}

func (s *shard[E, P]) set(i int, as keeping) {
	switch {
	case as == held && s.places[i].as != held:
		s.held++
	case as != held && s.places[i].as == held:
		s.held--
	}
	s.places[i].as = as
}

// review looks at some entries, anywhere: keys are hashes, so neighbours have nothing in common.
// Those whose penalty is over are held no longer. It returns the place of the one that changed
// longest ago of those that may go, -1 when all that it saw are held.
func (s *shard[E, P]) review(now time.Time) (oldest int) {
	oldest = -1
	for i, n := rand.IntN(len(s.places)), 0; n < looks; i = s.after(i) {
		if s.places[i].as == forgotten {
			continue
		}
		n++
		if s.places[i].as == held {
			if where, _ := P(&s.entries[i]).keep(now); where == held {
				continue
			}
			s.set(i, cached)
		}
		if oldest < 0 || s.places[i].last < s.places[oldest].last {
			oldest = i
		}
	}
	return oldest
}

// keepFlying remembers the attempts in flight of the entry in use, while there are any or
// somebody waits.
func (s *shard[E, P]) keepFlying(key uint64) {
	switch {
	case s.flies.count > 0 || s.flies.left != nil:
		if s.flying == nil {
			s.flying = make(map[uint64]flying)
		}
		s.flying[key] = s.flies
	case len(s.flying) > 0:
		delete(s.flying, key)
	}
}

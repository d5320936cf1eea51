package policy

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	shardsOf = 256 // locks of one table
	ways     = 16  // entries that one key can be among
	looks    = 4   // of them that are compared for who may go, and that are looked at for who needn't be held any more
)

// keeping is how much the loss of an entry would matter.
type keeping int

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
//
// An entry stands in one of the sixteen ways of its key's row, as in a processor's cache. So a
// million of them take little more than their own octets, the one that has to go is found by looking
// at fifteen others, and what is remembered makes a decision no slower.
type table[E any, P entry[E]] struct {
	first, most int // rows of a shard: of one that has any, and at the end
	room        int // most held entries of a shard
	count       atomic.Int64
	shards      [shardsOf]shard[E, P]
}

// A shard is the lock for its keys, with what is known of them.
type shard[E any, P entry[E]] struct {
	mu    sync.Mutex
	keys  []uint64 // by row and way; 0: none
	slots []E
	holds []bool // it counts in held
	count int
	held  int

	flying map[uint64]*flying // attempts in flight, whose number the callers bound

	now E // the one in use, and its flying: here, so that using them allocates nothing
	f   flying
}

// newTable returns a table that has room for size entries, of which room may be held. It begins small.
func newTable[E any, P entry[E]](size, room int) *table[E, P] {
	rows := size/(shardsOf*ways)*4/3 + 1 // rows fill unevenly
	t := &table[E, P]{first: rows, most: rows, room: max(1, room/shardsOf)}
	for t.first > 16 { // a row is only ever parted in two, so that nothing is lost when a shard grows
		t.first = (t.first + 1) / 2
		t.most = (t.most + 1) / 2
	}
	for t.most < rows {
		t.most *= 2
	}
	return t
}

// with calls do with the key's entry, or a fresh one, and with its attempts in flight, under the
// key's lock, and then keeps the entry as its new state asks. do must not use the table.
func (t *table[E, P]) with(key uint64, now time.Time, do func(*E, *flying)) {
	s := t.shard(&key)
	s.mu.Lock()
	defer s.mu.Unlock()
	at, before := s.load(key), s.count
	f, flies := s.flying[key]
	if !flies {
		s.f = flying{}
		f = &s.f
	}
	do(&s.now, f)
	t.store(s, key, at, now)
	t.count.Add(int64(s.count - before))
	switch {
	case f.count == 0 && f.left == nil:
		delete(s.flying, key)
	case !flies:
		if s.flying == nil {
			s.flying = make(map[uint64]*flying)
		}
		s.flying[key] = &flying{f.count, f.left}
	}
}

// look calls do with the key's entry, or a fresh one, under the key's lock. It leaves the table
// as it was: do must not change what it is given.
func (t *table[E, P]) look(key uint64, do func(*E, *flying)) {
	s := t.shard(&key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.load(key)
	f := s.flying[key]
	if f == nil {
		s.f = flying{}
		f = &s.f
	}
	do(&s.now, f)
}

// len returns how many entries there are.
func (t *table[E, P]) len() int { return int(t.count.Load()) }

// shard returns that of the key, which is made no 0 on the way.
func (t *table[E, P]) shard(key *uint64) *shard[E, P] {
	if *key == 0 {
		*key = 1
	}
	return &t.shards[*key%shardsOf]
}

// row returns where the key's ways begin.
func (s *shard[E, P]) row(key uint64) int {
	return int(key / shardsOf % uint64(len(s.keys)/ways) * ways)
}

// find returns the key's place, or -1.
func (s *shard[E, P]) find(key uint64) int {
	if len(s.keys) == 0 {
		return -1
	}
	row := s.row(key)
	for i, known := range s.keys[row : row+ways] {
		if known == key {
			return row + i
		}
	}
	return -1
}

// load puts the key's entry, or a fresh one, in use, and returns its place.
func (s *shard[E, P]) load(key uint64) int {
	at := s.find(key)
	if at < 0 {
		var fresh E
		s.now = fresh
	} else {
		s.now = s.slots[at]
	}
	return at
}

// store keeps the entry in use as it asks.
func (t *table[E, P]) store(s *shard[E, P], key uint64, at int, now time.Time) {
	where, _ := P(&s.now).keep(now)
	if where == forgotten {
		if at >= 0 {
			s.drop(at)
		}
		return
	}
	if at < 0 {
		if at = t.place(s, key, now); at < 0 {
			return
		}
		s.keys[at] = key
		s.count++
	}
	s.slots[at] = s.now
	if where == held && !s.holds[at] && s.held >= t.room {
		s.tidy(at, now)
	}
	s.hold(at, where == held && (s.holds[at] || s.held < t.room))
}

func (s *shard[E, P]) hold(at int, is bool) {
	if s.holds[at] == is {
		return
	}
	if s.holds[at] = is; is {
		s.held++
	} else {
		s.held--
	}
}

func (s *shard[E, P]) drop(at int) {
	var none E
	s.hold(at, false)
	s.keys[at], s.slots[at] = 0, none
	s.count--
}

// place finds an empty way for the key, and makes one where there is none. It returns -1 where all
// ways are held.
func (t *table[E, P]) place(s *shard[E, P], key uint64, now time.Time) int {
	if rows := len(s.keys) / ways; rows < t.most && s.count*4 >= len(s.keys)*3 {
		s.grow(max(t.first, 2*rows))
	}
	row := s.row(key)
	if way := slices.Index(s.keys[row:row+ways], 0); way >= 0 {
		return row + way
	}
	oldest, age := -1, uint32(0)
	for i, seen := 0, 0; i < ways && seen < looks; i++ {
		at := row + int(key>>32+uint64(i))%ways // beginning anywhere
		where, last := P(&s.slots[at]).keep(now)
		if where != held {
			s.hold(at, false)
		}
		if where == forgotten {
			s.drop(at)
			return at
		}
		if s.holds[at] {
			continue
		}
		if seen++; oldest < 0 || last < age {
			oldest, age = at, last
		}
	}
	if oldest >= 0 {
		s.drop(oldest)
	}
	return oldest
}

// grow gives the shard twice as many rows.
func (s *shard[E, P]) grow(rows int) {
	keys, slots, holds := s.keys, s.slots, s.holds
	s.keys, s.slots, s.holds = make([]uint64, rows*ways), make([]E, rows*ways), make([]bool, rows*ways)
	s.count, s.held = 0, 0
	for from, key := range keys {
		if key == 0 {
			continue
		}
		row := s.row(key)
		at := row + slices.Index(s.keys[row:row+ways], 0)
		s.keys[at], s.slots[at] = key, slots[from]
		s.hold(at, holds[from])
		s.count++
	}
}

// tidy looks at some ways next to this one: who was held there need be no longer.
func (s *shard[E, P]) tidy(at int, now time.Time) {
	for i := range looks {
		next := (at + 1 + i) % len(s.keys)
		if !s.holds[next] {
			continue
		}
		if where, _ := P(&s.slots[next]).keep(now); where != held {
			s.hold(next, false)
		}
	}
}

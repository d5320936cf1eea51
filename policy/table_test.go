package policy

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// A note is an entry that keeps as it was told.
type note struct {
	as    keeping
	until time.Time // then it says nothing any more
	last  uint32
	text  string
}

func (n *note) keep(now time.Time) (keeping, uint32) {
	if !now.Before(n.until) {
		return forgotten, 0
	}
	return n.as, n.last
}

func (n *note) write(as keeping, now time.Time) {
	*n = note{as, now.Add(time.Hour), secondsOf(now), "written"}
}

// notes returns a table of one shard's worth for each key that the test uses: they are all in the first.
func notes(size, room int) *table[note, *note] {
	return newTable[note](size*shardsOf, room*shardsOf)
}

// inFirst is the n-th key of the first shard.
func inFirst(n int) uint64 { return uint64(n+1) * shardsOf }

func (t *table[E, P]) has(key uint64) bool {
	s := t.shard(key)
	_, is := s.find(key)
	return is
}

func TestTableIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := notes(100, 50)
		for i := range 3_000 {
			time.Sleep(time.Second)
			table.with(inFirst(i), time.Now(), func(n *note, _ *flying) { n.write(cached, time.Now()) })
		}
		if n := table.len(); n != 100 {
			t.Errorf("%d entries, want 100", n)
		}
		if !table.has(inFirst(2_999)) {
			t.Error("the newest isn't there")
		}
	})
}

// A flood of new keys pushes out no entry that is held, and doesn't make more of these than there is room for.
func TestTableKeepsTheHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := notes(100, 50)
		for i := range 60 {
			table.with(inFirst(i), time.Now(), func(n *note, _ *flying) { n.write(held, time.Now()) })
		}
		for i := range 3_000 {
			table.with(inFirst(1000+i), time.Now(), func(n *note, _ *flying) { n.write(keeping(1+i%2), time.Now()) })
		}
		kept := 0
		for i := range 60 {
			if table.has(inFirst(i)) {
				kept++
			}
		}
		if kept < 50 || table.len() != 100 || table.shards[0].held != 50 {
			t.Errorf("%d of the first 50 are there, of %d entries %d held", kept, table.len(), table.shards[0].held)
		}

		// When they have said all that they had to, others take their places.
		time.Sleep(2 * time.Hour)
		for i := range 1000 {
			table.with(inFirst(20_000+i), time.Now(), func(n *note, _ *flying) { n.write(held, time.Now()) })
		}
		if table.has(inFirst(0)) && table.has(inFirst(1)) && table.has(inFirst(2)) {
			t.Error("what is over holds its place")
		}
		if table.len() > 100 || table.shards[0].held != 50 {
			t.Errorf("%d entries, %d held", table.len(), table.shards[0].held)
		}
	})
}

func TestTableForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := notes(100, 50)
		now := time.Now()
		table.with(1, now, func(n *note, _ *flying) { n.write(held, now) })
		table.with(2, now, func(*note, *flying) {})
		if !table.has(1) || table.has(2) {
			t.Error("it keeps what says something, and nothing else")
		}
		table.with(1, now, func(n *note, _ *flying) { n.as = cached })
		if table.shards[1].held != 0 {
			t.Error("it counts as held")
		}
		table.with(1, now.Add(2*time.Hour), func(*note, *flying) {})
		if table.len() != 0 {
			t.Error("it keeps what is over")
		}
	})
}

// Attempts in flight are counted while there are any, also for keys that aren't kept.
func TestTableFlying(t *testing.T) {
	table := notes(100, 50)
	now := time.Now()
	enter := func(_ *note, f *flying) { f.enter(Decision{Allowed: true}) }
	leave := func(_ *note, f *flying) { f.leave() }
	count := func() (n int) {
		table.look(1, func(_ *note, f *flying) { n = f.count })
		return n
	}
	table.with(1, now, enter)
	table.with(1, now, enter)
	var settled <-chan struct{}
	table.with(1, now, func(_ *note, f *flying) { settled = f.enter(refuseBusy(AddressLimit)) })
	if count() != 2 || table.has(1) {
		t.Errorf("%d in flight", count())
	}
	table.with(1, now, leave)
	select {
	case <-settled:
	default:
		t.Error("whoever waits isn't told")
	}
	table.with(1, now, leave)
	if count() != 0 || len(table.shards[1].flying) != 0 {
		t.Errorf("%d in flight, %d remembered", count(), len(table.shards[1].flying))
	}
}

func TestTableLooks(t *testing.T) {
	table := notes(100, 50)
	now := time.Now()
	table.with(1, now, func(n *note, _ *flying) { n.write(cached, now) })
	for key, want := range map[uint64]string{1: "written", 2: ""} {
		table.look(key, func(n *note, f *flying) {
			if n.text != want || f.count != 0 {
				t.Errorf("key %d: %+v, %d in flight", key, n, f.count)
			}
		})
	}
	if table.len() != 1 {
		t.Errorf("%d entries", table.len())
	}
}

// A table small enough to forget nothing is a map, however its keys meet: those of the test have few homes.
func TestTableIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table := notes(200, 100)
		now := time.Now()
		want := make(map[uint64]keeping)
		homes := rapid.IntRange(1, 8).Draw(t, "homes")
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			n := rapid.IntRange(0, 60).Draw(t, "key")
			key := inFirst(n) + uint64(n%homes)<<61
			as := rapid.SampledFrom([]keeping{forgotten, cached, held}).Draw(t, "as")
			table.with(key, now, func(e *note, _ *flying) {
				if e.as != want[key] {
					t.Fatalf("key %x: kept as %d, want %d", key, e.as, want[key])
				}
				e.write(as, now)
			})
			if want[key] = as; as == forgotten {
				delete(want, key)
			}
			heldOnes := 0
			for key, as := range want {
				if as == held {
					heldOnes++
				}
				table.look(key, func(e *note, _ *flying) {
					if e.as != as {
						t.Fatalf("key %x: kept as %d, want %d", key, e.as, as)
					}
				})
			}
			if n := table.len(); n != len(want) || table.shards[0].held != heldOnes {
				t.Fatalf("%d entries, %d of them held; want %d and %d", n, table.shards[0].held, len(want), heldOnes)
			}
		}
	})
}

// When none of a table's entries may go but there is room, one more is cached.
func TestTableOfHeldOnes(t *testing.T) {
	table := notes(100, 50)
	now := time.Now()
	for i := range 51 {
		table.with(inFirst(i), now, func(n *note, _ *flying) { n.write(held, now) })
	}
	if table.len() != 51 || table.shards[0].held != 50 {
		t.Errorf("%d entries, %d of them held", table.len(), table.shards[0].held)
	}
}

// A mark is an entry of 32 octets.
type mark struct {
	as   keeping
	last uint32
	_    [24]byte
}

func (m *mark) keep(time.Time) (keeping, uint32) { return m.as, m.last }

// spread is the n-th of keys as hashes are: all over.
func spread(n int) uint64 {
	x := uint64(n+1) * 0x9e37_79b9_7f4a_7c15 // SplitMix64, a bijection
	x = (x ^ x>>30) * 0xbf58_476d_1ce4_e5b9
	x = (x ^ x>>27) * 0x94d0_49bb_1331_11eb
	return x ^ x>>31
}

func marks(from, to int, t *table[mark, *mark], as keeping) {
	now := time.Now()
	for n := from; n < to; n++ {
		t.with(spread(n), now, func(m *mark, _ *flying) { *m = mark{as: as, last: uint32(n)} })
	}
}

// A million entries take few octets each. Five million more free none that is held.
func TestTableFlood(t *testing.T) {
	const million = 1_000_000 / shrink
	before := megabytes()
	table := newTable[mark](million, million/2)
	marks(0, million/4, table, held)
	marks(million/4, million, table, cached)
	octets := (megabytes() - before) << 20 / table.len()
	t.Logf("%d entries, %d octets each", table.len(), octets)
	if shrink == 1 && octets >= 100 {
		t.Errorf("%d octets an entry", octets)
	}
	if n := table.len(); n < million*97/100 {
		t.Errorf("%d entries of a million", n)
	}

	marks(million, 6*million, table, cached)
	lost := 0
	for n := range million / 4 {
		table.look(spread(n), func(m *mark, _ *flying) {
			if m.as != held {
				lost++
			}
		})
	}
	if lost > 0 || table.len() > million {
		t.Errorf("%d of those that are held are lost, %d entries", lost, table.len())
	}
	runtime.KeepAlive(table)
}

// Of those that may go, old ones do: hardly one of the newest quarter is gone.
func TestTableLetsTheOldGo(t *testing.T) {
	const size = 10_000
	table := newTable[mark](size, size/2)
	marks(0, 10*size, table, cached)
	newest := 0
	for n := 10*size - size/4; n < 10*size; n++ {
		if table.has(spread(n)) {
			newest++
		}
	}
	if newest < size/4*95/100 {
		t.Errorf("%d of the newest %d are there", newest, size/4)
	}
}

// What a decision does often costs the garbage collector nothing.
func TestTableAllocatesNothing(t *testing.T) {
	table := notes(100, 50)
	now := time.Now()
	table.with(1, now, func(n *note, f *flying) { n.write(cached, now); f.enter(Decision{Allowed: true}) })
	enter := func(_ *note, f *flying) { f.enter(Decision{Allowed: true}) }
	leave := func(_ *note, f *flying) { f.leave() }
	for name, do := range map[string]func(){
		"with":    func() { table.with(1, now, enter); table.with(1, now, leave) },
		"in vain": func() { table.with(2, now, enter); table.with(2, now, leave) },
		"look":    func() { table.look(1, func(*note, *flying) {}) },
	} {
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkTable is a known key's turn, and a fresh one's in a full table.
func BenchmarkTable(b *testing.B) {
	now := time.Now()
	for _, keys := range []int{1_000, 1_000_000} {
		table := newTable[mark](keys, keys/2)
		marks(0, keys, table, cached)
		b.Run(fmt.Sprintf("known/%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			for n := 0; b.Loop(); n = (n + 1) % keys {
				table.with(spread(n), now, func(m *mark, _ *flying) { m.last++ })
			}
		})
		next := keys
		b.Run(fmt.Sprintf("fresh/%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				next++
				table.with(spread(next), now, func(m *mark, _ *flying) { *m = mark{as: cached, last: uint32(next)} })
			}
		})
	}
}

package policy

import (
	"testing"
	"testing/synctest"
	"time"
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

// notes returns a table whose shards have 144 places each, 64 of them for those that are held.
func notes() *table[note, *note] { return newTable[note](96*shardsOf, 64*shardsOf) }

// inFirst is the n-th key of the first shard, anywhere in it.
func inFirst(n int) uint64 { return uint64(n+1) * 0x9e37_79b9_7f4a_7c15 * shardsOf }

func (t *table[E, P]) has(key uint64) bool {
	return t.shard(&key).find(key) >= 0
}

func TestTableIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := notes()
		for i := range 10_000 {
			time.Sleep(time.Second)
			table.with(inFirst(i), time.Now(), func(n *note, _ *flying) { n.write(cached, time.Now()) })
		}
		if n := table.len(); n != 144 {
			t.Errorf("%d entries, want 144", n)
		}
		if !table.has(inFirst(9_999)) {
			t.Error("the newest isn't there")
		}
	})
}

// A flood of new keys pushes out no entry that is held, and doesn't make more of these than there is room for.
func TestTableKeepsTheHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := notes()
		for i := range 70 {
			table.with(inFirst(i), time.Now(), func(n *note, _ *flying) { n.write(held, time.Now()) })
		}
		for i := range 10_000 {
			table.with(inFirst(1000+i), time.Now(), func(n *note, _ *flying) { n.write(keeping(1+i%2), time.Now()) })
		}
		kept := 0
		for i := range 64 {
			if table.has(inFirst(i)) {
				kept++
			}
		}
		if kept < 64 || table.len() > 144 || table.shards[0].held != 64 {
			t.Errorf("%d of the first 64 are there, of %d entries %d held", kept, table.len(), table.shards[0].held)
		}

		// When they have said all that they had to, others take their places.
		time.Sleep(2 * time.Hour)
		for i := range 1000 {
			table.with(inFirst(20_000+i), time.Now(), func(n *note, _ *flying) { n.write(held, time.Now()) })
		}
		if table.has(inFirst(0)) && table.has(inFirst(1)) && table.has(inFirst(2)) {
			t.Error("what is over holds its place")
		}
		if table.len() > 144 || table.shards[0].held != 64 {
			t.Errorf("%d entries, %d held", table.len(), table.shards[0].held)
		}
	})
}

func TestTableForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := notes()
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
	table := notes()
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
	table := notes()
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

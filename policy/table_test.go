package policy

import (
	"testing"
	"testing/synctest"
	"time"
)

// A note is kept as it says, until its time is over.
type note struct {
	as    keeping
	until time.Time
	text  string
}

func (n *note) keep(now time.Time) keeping {
	if n.as == held && !now.Before(n.until) {
		return forgotten
	}
	return n.as
}

func newNotes(size, room int) *table[int, *note] {
	return newTable[int](size, room, time.Hour, func() *note { return new(note) })
}

// kept is the number of entries that a table remembers.
func kept[K comparable, E entry](t *table[K, E]) int {
	t.cache.CleanUp()
	n := t.cache.EstimatedSize()
	for i := range t.shards {
		for key := range t.shards[i].kept {
			if _, both := t.cache.GetEntryQuietly(key); !both {
				n++
			}
		}
	}
	return n
}

func (n *note) write(as keeping, until time.Time) { n.as, n.until, n.text = as, until, "written" }

func read(t *table[int, *note], key int) (text string) {
	t.with(key, time.Now(), func(n *note) { text = n.text })
	return text
}

func TestTableKeepsTheHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, room, all = 100, shardsOf * 10, 20_000
		notes := newNotes(size, room)
		end := time.Now().Add(time.Minute)
		first := map[int]bool{}
		for key := range all {
			notes.with(key, time.Now(), func(n *note) { n.write(held, end) })
			s := 0
			for i := range notes.shards {
				s += len(notes.shards[i].kept)
			}
			if s > len(first) {
				first[key] = true
			}
		}
		if len(first) != room {
			t.Fatalf("%d held, want %d", len(first), room)
		}
		for key := range first {
			if read(notes, key) == "" {
				t.Fatalf("key %d was pushed out by later ones", key)
			}
		}
		if n := kept(notes); n > size+room {
			t.Errorf("%d entries, want at most %d", n, size+room)
		}
		time.Sleep(time.Minute) // what has ended makes room
		for key := range all {
			notes.with(-key, time.Now(), func(n *note) { n.write(held, time.Now().Add(time.Minute)) })
		}
		fresh := 0
		for i := range notes.shards {
			for key, n := range notes.shards[i].kept {
				if key <= 0 && n.as == held {
					fresh++
				}
			}
		}
		if fresh < room*9/10 {
			t.Errorf("%d of %d places went to new ones", fresh, room)
		}
	})
}

func TestTableMovesEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notes := newNotes(100, 100)
		for _, as := range []keeping{cached, pinned, cached, held, cached, pinned, held} {
			before := read(notes, 1)
			notes.with(1, time.Now(), func(n *note) {
				if n.text != before {
					t.Errorf("as %d: %q, want %q", as, n.text, before)
				}
				n.write(as, time.Now().Add(time.Minute))
			})
			if n := kept(notes); n != 1 {
				t.Errorf("as %d: in %d places", as, n)
			}
		}
		notes.with(1, time.Now(), func(n *note) { n.write(forgotten, time.Time{}) })
		if n := kept(notes); n != 0 {
			t.Errorf("forgotten, and yet in %d places", n)
		}
	})
}

func TestTableForgetsTheIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		notes := newNotes(100, 100)
		notes.with(1, time.Now(), func(n *note) { n.write(cached, time.Time{}) })
		time.Sleep(59 * time.Minute)
		if read(notes, 1) == "" { // and is used, so that the hour begins anew
			t.Fatal("gone too early")
		}
		time.Sleep(59 * time.Minute)
		if read(notes, 1) == "" {
			t.Fatal("gone though it was used")
		}
		time.Sleep(61 * time.Minute)
		if read(notes, 1) != "" {
			t.Error("still there after an idle hour")
		}
	})
}

package storetest

import (
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"imapwarden/audit"
)

// Chained returns the hash of the last event, and an error where one of them isn't
// chained to the one before it, the first to the given hash.
func Chained(previous audit.Hash, events []audit.Event) (audit.Hash, error) {
	for _, e := range events {
		if want := audit.Chain(previous, e); e.Hash != want {
			return audit.Hash{}, fmt.Errorf("event %d has the hash %x, want %x", e.ID, e.Hash, want)
		}
		previous = e.Hash
	}
	return previous, nil
}

func chained(t *testing.T, previous audit.Hash, events []audit.Event) audit.Hash {
	t.Helper()
	last, err := Chained(previous, events)
	must(t, err)
	return last
}

// mark returns the last event that was purged.
func mark(t *testing.T, s Store) (int64, audit.Hash) {
	t.Helper()
	text, err := s.Mark(t.Context(), audit.ChainMark)
	must(t, err)
	id, hash, err := audit.ParseMark(text)
	must(t, err)
	return id, hash
}

func numbered(from, to int) []audit.Event {
	var list []audit.Event
	for i := from; i < to; i++ {
		list = append(list, audit.Event{Time: day.Add(time.Duration(i) * time.Minute), Detail: strconv.Itoa(i)})
	}
	return list
}

func appendSays(t *testing.T, s Store) {
	mine := []audit.Event{
		{Time: day.Add(999).In(time.FixedZone("", 3600)), Kind: "login", Outcome: audit.Accepted, Source: "::ffff:192.0.2.1", Program: "ü\x00"},
		{ID: 99, Source: "unix", Hash: audit.Hash{1}}, // what was in there doesn't count
	}
	must(t, s.Append(t.Context(), mine))
	same(t, "what Append says", mine, events(t, s, audit.Filter{}))
	same(t, "the source", mine[0].Source, "192.0.2.1")
	same(t, "the time", mine[0].Time, day)
	if mine[1].ID != mine[0].ID+1 {
		t.Errorf("the IDs are %d and %d", mine[0].ID, mine[1].ID)
	}
	chained(t, audit.Hash{}, mine)
}

func chain(t *testing.T, s Store) {
	must(t, s.Append(t.Context(), numbered(0, 3)))
	must(t, s.Append(t.Context(), nil))
	must(t, s.Append(t.Context(), numbered(3, 4)))
	must(t, s.Append(t.Context(), numbered(4, 6)))
	all := events(t, s, audit.Filter{})
	same(t, "the number of events", len(all), 6)
	chained(t, audit.Hash{}, all)
	same(t, "an event chosen alone", events(t, s, audit.Filter{After: all[4].ID}), all[5:])
	if text, err := s.Mark(t.Context(), audit.ChainMark); text != "" || err != nil {
		t.Errorf("the mark is %q, %v, though nothing was purged", text, err)
	}
}

func chainRace(t *testing.T, s Store) {
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 10 {
				mine := numbered(i, i+j%3+1)
				if err := s.Append(t.Context(), mine); err != nil {
					t.Error(err)
				} else if mine[0].Hash.IsZero() || mine[0].ID == 0 {
					t.Error("Append says nothing")
				}
			}
		})
	}
	wg.Wait()
	all := events(t, s, audit.Filter{})
	same(t, "the number of events", len(all), 16*19)
	chained(t, audit.Hash{}, all)
}

func chainOverPurge(t *testing.T, s Store) {
	mine := numbered(0, 6)
	must(t, s.Append(t.Context(), mine))
	for _, step := range []struct {
		before time.Time
		most   int
		last   int // that goes
	}{
		{day.Add(time.Minute), 100, 0},
		{day, 4, 1},
		{day.Add(3 * time.Minute), 2, 3},
	} {
		_, err := s.PurgeEvents(t.Context(), step.before, step.most)
		must(t, err)
		id, hash := mark(t, s)
		if last := mine[step.last]; id != last.ID || hash != last.Hash {
			t.Errorf("the mark is of %d, want event %d with its hash", id, last.ID)
		}
		rest := events(t, s, audit.Filter{})
		same(t, "the events", rest, mine[step.last+1:])
		chained(t, hash, rest)
	}
	purge(t, s, day, 2, 0) // nothing goes: nothing is noted
	if id, _ := mark(t, s); id != mine[3].ID {
		t.Errorf("the mark is of %d, want %d", id, mine[3].ID)
	}

	more := numbered(6, 8)
	must(t, s.Append(t.Context(), more))
	mine = slices.Concat(mine, more)
	purge(t, s, day.AddDate(1, 0, 0), 100, 4) // all of them
	id, hash := mark(t, s)
	if id != mine[7].ID || hash != mine[7].Hash {
		t.Errorf("the mark is of %d, want %d with its hash", id, mine[7].ID)
	}
	again := numbered(8, 10)
	must(t, s.Append(t.Context(), again))
	chained(t, audit.Hash{}, slices.Concat(mine, again))
}

package memory_test

import (
	"slices"
	"testing"

	"imapwarden/audit"
	"imapwarden/store/memory"
	"imapwarden/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Store { return memory.New() })
}

func TestEventsAreBounded(t *testing.T) {
	s := memory.New()
	for range 3 {
		if err := s.Append(t.Context(), slices.Repeat([]audit.Event{{Kind: "login"}}, 4000)); err != nil {
			t.Fatal(err)
		}
	}
	events, err := s.Events(t.Context(), audit.Filter{Limit: 20_000})
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != 10_000 || events[0].ID != 2001 || events[9999].ID != 12_000 {
		t.Errorf("got %d events, %d to %d; want 10000, 2001 to 12000", len(events), events[0].ID, events[len(events)-1].ID)
	}
	// What fell out was purged: the chain of the others begins at the mark.
	text, err := s.Mark(t.Context(), audit.ChainMark)
	if err != nil {
		t.Fatal(err)
	}
	id, hash, err := audit.ParseMark(text)
	if err != nil || id != 2000 {
		t.Errorf("the mark is %q, want one of event 2000 (%v)", text, err)
	}
	if _, err := storetest.Chained(hash, events); err != nil {
		t.Error(err)
	}
}

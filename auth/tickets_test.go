package auth

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func ticketKeys(t *testing.T, records Marks, keys *Keys, now time.Time) [][32]byte {
	t.Helper()
	list, err := TicketKeys(t.Context(), records, keys, now)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestTicketKeysEachDay(t *testing.T) {
	keys, records := testKeys(t), newFake()
	start := time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC)
	var made [][32]byte // newest first
	for day := range 20 {
		now := start.AddDate(0, 0, day)
		list := ticketKeys(t, records, keys, now)
		if slices.Contains(made, list[0]) || list[0] == [32]byte{} {
			t.Errorf("day %d: not a new key in front", day)
		}
		made = slices.Insert(made, 0, list[0])
		if want := made[:min(len(made), 8)]; !slices.Equal(list, want) {
			t.Errorf("day %d: %d keys, want the newest %d of those before", day, len(list), len(want))
		}
		stored := records.marks[ticketMark]
		if again := ticketKeys(t, records, keys, now.Add(23*time.Hour)); !slices.Equal(again[:1], list[:1]) {
			t.Errorf("day %d: a second key", day)
		}
		if day < 7 && records.marks[ticketMark] != stored {
			t.Errorf("day %d: written though nothing had changed", day)
		}
		for _, key := range made[min(len(made), 9):] {
			if slices.Contains(list, key) {
				t.Errorf("day %d: an old key is still there", day)
			}
		}
	}
}

func TestTicketKeysStartAnew(t *testing.T) {
	start := time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC)
	for name, change := range map[string]func(records *fakeRecords, keys **Keys, now *time.Time){
		"master key lost": func(_ *fakeRecords, keys **Keys, _ *time.Time) { *keys = testKeys(t) },
		"not base64":      func(records *fakeRecords, _ **Keys, _ *time.Time) { records.marks[ticketMark] = "!" },
		"cut": func(records *fakeRecords, _ **Keys, _ *time.Time) {
			records.marks[ticketMark] = records.marks[ticketMark][:40]
		},
		"off for long":       func(_ *fakeRecords, _ **Keys, now *time.Time) { *now = now.Add(ticketLife + 1) },
		"clock put far back": func(_ *fakeRecords, _ **Keys, now *time.Time) { *now = now.Add(-ticketEvery - 1) },
	} {
		t.Run(name, func(t *testing.T) {
			keys, records, now := testKeys(t), newFake(), start
			first := ticketKeys(t, records, keys, now)
			change(records, &keys, &now)
			list := ticketKeys(t, records, keys, now)
			if len(list) != 1 || list[0] == first[0] {
				t.Errorf("%d keys, want a new one alone", len(list))
			}
			if again := ticketKeys(t, records, keys, now); !slices.Equal(again, list) {
				t.Error("not kept")
			}
		})
	}
}

func TestTicketKeysNeedTheStore(t *testing.T) {
	records := newFake()
	records.setDown(true)
	if _, err := TicketKeys(t.Context(), records, testKeys(t), time.Now()); !errors.Is(err, errDown) {
		t.Errorf("got %v, want errDown", err)
	}
}

package policy

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// wrongClock returns a Gate whose clock is what the returned variable says, a year ahead at first, as
// with a battery that is empty.
func wrongClock() (*Gate, *time.Time) {
	now := time.Now().Add(365 * day)
	return &Gate{Now: func() time.Time { return now }, Limits: Limits{Decoys: []string{"backup"}}}, &now
}

const day = 24 * time.Hour

// What failed while the clock was ahead keeps nobody out once it is right.
func TestClockSetBack(t *testing.T) {
	g, now := wrongClock()
	for i := range 15 {
		fail(g, hotel, "alice", fmt.Sprint(i))
	}
	if d := ask(g, hotel, "bob"); d.Signal != AddressLimit {
		t.Fatalf("while it is ahead: %+v", d)
	}
	*now = now.Add(-365 * day)
	if d := ask(g, hotel, "bob"); !d.Allowed {
		t.Errorf("once it is right: %+v", d)
	}
	failures(t, g, hotel, "bob", 9) // and a limit holds again
	fail(g, hotel, "bob", "the last")
	if d := ask(g, hotel, "carol"); d.Signal != AddressLimit || d.Wait > time.Minute {
		t.Errorf("ten failures later: %+v", d)
	}
}

// An alarm ends, though what began it was counted for a time to come.
func TestClockSetBackEndsAlarm(t *testing.T) {
	g, now := wrongClock()
	spray := func() {
		for i := range 60 {
			failAs(g, password(netip.AddrFrom4([4]byte{11, 0, byte(i), 1}), fmt.Sprint(i)).with(fmt.Sprint(*now, i)), Failure{})
		}
	}
	spray()
	if !g.Alarmed() {
		t.Fatal("no alarm while the clock is ahead")
	}
	*now = now.Add(-365 * day)
	if g.Alarmed() {
		t.Error("an alarm of a time to come")
	}
	spray()
	if !g.Alarmed() {
		t.Error("no alarm once the clock is right")
	}
	*now = now.Add(day)
	if g.Alarmed() {
		t.Error("the alarm lasts for a day")
	}
}

func TestDayKeysFollowTheClock(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name       string
		after      time.Duration
		known, old bool // the key of noon is still today's, or yesterday's
	}{
		{"later that day", 11 * time.Hour, true, false},
		{"the next day", day, false, true},
		{"two days later", 2 * day, false, false},
		{"an attempt that began the day before", -day, true, false},
		{"set back by two days", -2 * day, false, false},
		{"set back by a year", -365 * day, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var keys secretKeys
			was := keys.at(noon).today
			is := keys.at(noon.Add(tt.after))
			if known, old := is.today == was, is.yesterday == was; known != tt.known || old != tt.old {
				t.Errorf("today's %v, yesterday's %v", known, old)
			}
			if !tt.known && is.today.day != dayOf(noon.Add(tt.after)) {
				t.Errorf("the key is of day %d", is.today.day)
			}
		})
	}
}

// A ban that was made while the clock was ahead begins when that is noticed, in the memory too, by
// a restart or without one; one that was over in that time isn't.
func TestClockSetBackEndsBans(t *testing.T) {
	g, now := wrongClock()
	m := newFakeMemory()
	if err := g.Load(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	right := now.Add(-365 * day)
	byHand, err := NewBan(netip.MustParsePrefix("10.0.0.0/8"), day, "uid 0", right)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Ban(t.Context(), byHand); err != nil {
		t.Fatal(err)
	}
	if d := ask(g, netip.MustParseAddr("10.1.2.3"), "alice"); !d.Allowed {
		t.Fatalf("by hand, a year after its end: %+v", d)
	}
	g.Begin(password(hotel, "backup"))
	if err := g.store(t.Context()); err != nil || len(m.bans) != 2 {
		t.Fatalf("%v, stored: %v", err, m.bans)
	}

	*now = right
	restarted := &Gate{Now: g.Now}
	kept := newFakeMemory()
	for network, ban := range m.bans {
		kept.bans[network] = ban
	}
	if err := restarted.Load(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	for name, one := range map[string]struct {
		g *Gate
		m *fakeMemory
	}{"restarted": {restarted, kept}, "going on": {g, m}} {
		t.Run(name, func(t *testing.T) {
			if d := ask(one.g, netip.MustParseAddr("10.1.2.3"), "alice"); d.Signal != Banned || d.Wait != day {
				t.Errorf("by hand: %+v", d)
			}
			if d := ask(one.g, hotel, "alice"); d.Signal != Banned || d.Wait != 10*time.Minute {
				t.Errorf("by a signal: %+v, want ten minutes from now", d)
			}
			if err := one.g.store(context.Background()); err != nil {
				t.Fatal(err)
			}
			if stored := one.m.bans[netip.PrefixFrom(hotel, 32)]; !stored.Until.Equal(right.Add(10 * time.Minute)) {
				t.Errorf("stored: %+v", stored)
			}
			if list, err := (Book{Memory: one.m, Now: one.g.Now}).Bans(t.Context()); err != nil || len(list) != 2 {
				t.Errorf("in the book: %v, %v", list, err)
			}
		})
	}
}

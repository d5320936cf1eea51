package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// limited is what a stranger can cause by the thousand.
func limited(source string) Event {
	return Event{Time: time.Now(), Kind: "login", Outcome: Refused, Source: source, Reason: "address-limit"}
}

func repeatIt(t *testing.T, r *Recorder, events ...Event) {
	t.Helper()
	for _, e := range events {
		if err := r.RecordRepeated(t.Context(), e); err != nil {
			t.Error(err)
		}
	}
}

// stored returns what the sink has, once all goroutines have nothing left to do.
func (s *fakeSink) stored() []Event {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(s.batches...)
}

func TestRepeatsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{}
		r, logs := recorder(sink)
		began := time.Now()
		first := limited("192.0.2.1")
		first.Session, first.Account, first.Program, first.Rule, first.Detail = "s0", "alice", "Mail", "r", "why"
		repeatIt(t, r, first)
		if diff := cmp.Diff([]Event{first}, sink.stored()); diff != "" {
			t.Errorf("not at once, or not as it is: %s", diff)
		}
		for i := range 137 {
			time.Sleep(100 * time.Millisecond)
			e := limited(fmt.Sprintf("192.0.2.%d", 2+i))
			e.Session, e.Account, e.Program, e.Rule = fmt.Sprint("s", i), fmt.Sprint("user", i%3), "Post", "r"
			repeatIt(t, r, e)
		}
		last := time.Now()
		time.Sleep(began.Add(time.Minute).Sub(last) - time.Nanosecond)
		if n := len(sink.stored()); n != 1 {
			t.Errorf("%d events before the minute is over", n)
		}
		time.Sleep(time.Nanosecond)
		want := Event{
			Time: last, Kind: "login", Outcome: Refused, Source: "192.0.2.138", Program: "Post", Reason: "address-limit", Rule: "r",
			Detail: "stands for 137 from 192.0.2.0/24 within a minute",
		}
		if diff := cmp.Diff([]Event{first, want}, sink.stored()); diff != "" {
			t.Error(diff)
		}
		closeIt(t, r)
		if n := len(sink.stored()); n != 2 || logs.Len() != 0 {
			t.Errorf("%d events after Close, and %d in the log", n, logs.Len())
		}
	})
}

// However long a flood lasts, it is one event a minute; what comes after it is a first again.
func TestRepeatsOfAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{}
		r, _ := recorder(sink)
		began := time.Now()
		for range 590 {
			repeatIt(t, r, limited("2001:db8::1"))
			time.Sleep(time.Second / 2)
		}
		time.Sleep(2 * time.Minute)
		repeatIt(t, r, limited("2001:db8::1"))
		closeIt(t, r)
		var got []string
		for _, e := range sink.stored() {
			got = append(got, fmt.Sprintf("%v %s", e.Time.Sub(began), e.Detail))
		}
		if len(got) != 7 {
			t.Fatalf("%d events, want 7: %q", len(got), got)
		}
		if n := total(t, sink.stored()); n != 591 {
			t.Errorf("%d events written and counted, want 591: %q", n, got)
		}
		if got[0] != "0s " || got[6] != "6m55s " {
			t.Errorf("the first events of a flood are %q and %q", got[0], got[6])
		}
	})
}

// total is how many events are written and counted.
func total(t *testing.T, events []Event) int {
	t.Helper()
	sum := 0
	for _, e := range events {
		n := 1
		if e.Detail != "" {
			if _, err := fmt.Sscanf(e.Detail, "stands for %d", &n); err != nil {
				t.Errorf("the detail %q has no number: %v", e.Detail, err)
			}
		}
		sum += n
	}
	return sum
}

func TestRepeatsAreToldApart(t *testing.T) {
	base := Event{Kind: "login", Outcome: Refused, Source: "192.0.2.1", Reason: "address-limit"}
	for name, test := range map[string]struct {
		first, second func(e *Event)
		same          bool
	}{
		"another kind":                {second: func(e *Event) { e.Kind = "logout" }},
		"another outcome":             {second: func(e *Event) { e.Outcome = Failed }},
		"another reason":              {second: func(e *Event) { e.Reason = "malformed-name" }},
		"another /24":                 {second: func(e *Event) { e.Source = "192.0.3.1" }},
		"no source":                   {second: func(e *Event) { e.Source = "" }},
		"another account":             {second: func(e *Event) { e.Account = "bob" }, same: true},
		"the same /24":                {second: func(e *Event) { e.Source = "192.0.2.255" }, same: true},
		"the same /24 in IPv6":        {second: func(e *Event) { e.Source = "::ffff:192.0.2.255" }, same: true},
		"another /48":                 {first: from("2001:db8:1::1"), second: from("2001:db8:2::1")},
		"the same /48":                {first: from("2001:db8:1::1"), second: from("2001:db8:1:ffff::1"), same: true},
		"the same /48, and interface": {first: from("fe80::1%eth0"), second: from("fe80::1%eth1"), same: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sink := &fakeSink{}
				r, _ := recorder(sink)
				first, second := base, base
				if test.first != nil {
					test.first(&first)
				}
				test.second(&second)
				repeatIt(t, r, first, second)
				want := 2
				if test.same {
					want = 1
				}
				if n := len(sink.stored()); n != want {
					t.Errorf("%d events at once, want %d", n, want)
				}
				closeIt(t, r)
				if n := len(sink.stored()); n != 2 {
					t.Errorf("%d events after Close, want 2", n)
				}
			})
		})
	}
}

func (r *repeats) size() (windows, order int) {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.windows), len(r.order)
}

func from(source string) func(*Event) { return func(e *Event) { e.Source = source } }

// A stranger with 20,000 networks makes us remember 10,000 of them, and write no more
// than these a minute. Nothing goes uncounted.
func TestRepeatsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{}
		r, logs := recorder(sink)
		const networks, rounds = 20_000, 3
		sent := 0
		for range rounds {
			for i := range networks {
				repeatIt(t, r, limited(fmt.Sprintf("%d.%d.%d.7", 10+i>>16, i>>8&255, i&255)))
				sent++
			}
			time.Sleep(10 * time.Second)
			if windows, order := r.repeats.size(); windows != maxRepeats+1 || order != windows {
				t.Fatalf("%d windows and %d in their order, want one over %d", windows, order, maxRepeats)
			}
		}
		if n := len(sink.stored()); n != maxRepeats+1 {
			t.Errorf("%d events in the first minute, want one over %d", n, maxRepeats)
		}
		time.Sleep(time.Minute)
		events := sink.stored()
		if n := len(events); n != 2*(maxRepeats+1) {
			t.Errorf("%d events, want %d", n, 2*(maxRepeats+1))
		}
		if n := total(t, events); n != sent {
			t.Errorf("%d of %d events written or counted", n, sent)
		}
		var nowhere []Event
		for _, e := range events {
			if e.Source == "" {
				nowhere = append(nowhere, e)
			}
		}
		if want := "stands for 29999 within a minute"; len(nowhere) != 1 || nowhere[0].Detail != want {
			t.Errorf("counted together: %v, want one event with %q", nowhere, want)
		}
		time.Sleep(2 * time.Minute)
		if windows, order := r.repeats.size(); windows+order != 0 {
			t.Errorf("%d windows and %d in their order are left after the flood", windows, order)
		}
		closeIt(t, r)
		if logs.Len() != 0 {
			t.Errorf("%d log entries", logs.Len())
		}
	})
}

func TestRepeatsAtClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{}
		r, logs := recorder(sink)
		for range 10 {
			repeatIt(t, r, limited("192.0.2.1"), limited("192.0.3.1"))
		}
		closeIt(t, r)
		if events := sink.stored(); len(events) != 4 || total(t, events) != 20 {
			t.Errorf("stored %v, want two events and their repetitions", events)
		}
		for range 2 {
			if err := r.RecordRepeated(t.Context(), limited("192.0.2.1")); !errors.Is(err, errClosed) {
				t.Errorf("after Close: %v", err)
			}
		}
		if n := len(logged(t, logs)); n != 2 {
			t.Errorf("%d events logged, want 2", n)
		}
		closeIt(t, r)
	})
}

// With a sink that hangs, what was counted still ends in the log, and Close in time.
func TestRepeatsAtCloseOverAHangingSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, logs := recorder(&fakeSink{gate: make(chan struct{})})
		for i := range queueLength / 2 {
			e := limited(fmt.Sprintf("10.%d.%d.1", i>>8, i&255))
			repeatIt(t, r, e, e, e)
		}
		record(t, r, 0, queueLength/2) // full
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := r.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("closing over a sink that hangs: %v", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v, want 1s", took)
		}
		events := logged(t, logs)
		if len(events) != queueLength+queueLength/2 || total(t, events) != queueLength/2*4 {
			t.Errorf("%d events in the log, for %d", len(events), total(t, events))
		}
	})
}

func TestRepeatsByManyCallers(t *testing.T) {
	sink := &fakeSink{}
	r, _ := recorder(sink)
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() {
			for range 5000 { // for real, in less than the minute of any network
				repeatIt(t, r, limited(fmt.Sprintf("192.0.%d.1", i%4)))
			}
		})
	}
	callers.Wait()
	closeIt(t, r)
	events := slices.Concat(sink.batches...)
	if n := total(t, events); n != 20*5000 || len(events) > 4*3 {
		t.Errorf("%d events for %d of %d", len(events), n, 20*5000)
	}
}

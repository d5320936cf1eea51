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

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

var errDisk = errors.New("disk full")

// A fakeSink keeps events in memory.
type fakeSink struct {
	gate     chan struct{} // where not nil, each Append waits for one element, or for its context
	failures int           // so many Appends fail first; -1: all

	mu      sync.Mutex
	calls   int
	batches [][]Event
}

func (s *fakeSink) Append(ctx context.Context, events []Event) error {
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.failures < 0 || s.calls <= s.failures {
		return errDisk
	}
	s.batches = append(s.batches, slices.Clone(events))
	return nil
}

// sessions returns the stored events' session ids in order.
func (s *fakeSink) sessions() []string {
	var ids []string
	for _, e := range slices.Concat(s.batches...) {
		ids = append(ids, e.Session)
	}
	return ids
}

// recorder returns a Recorder on sink and what it logs.
func recorder(sink Sink) (*Recorder, *observer.ObservedLogs) {
	core, logs := observer.New(zap.DebugLevel)
	return NewRecorder(sink, zap.New(core)), logs
}

// record records n events with session ids that count up from first.
func record(t *testing.T, r *Recorder, first, n int) {
	t.Helper()
	for i := range n {
		if err := r.Record(t.Context(), Event{Session: fmt.Sprint(first + i)}); err != nil {
			t.Errorf("event %d: %v", first+i, err)
		}
	}
}

func closeIt(t *testing.T, r *Recorder) {
	t.Helper()
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// logged returns the events in the log, which has nothing else.
func logged(t *testing.T, logs *observer.ObservedLogs) []Event {
	t.Helper()
	var events []Event
	for _, entry := range logs.All() {
		e, ok := entry.ContextMap()["event"].(Event)
		if !ok || entry.Level != zapcore.ErrorLevel || entry.ContextMap()["error"] == "" {
			t.Fatalf("log entry without event and error, or not at error level: %v", entry)
		}
		events = append(events, e)
	}
	return events
}

func TestRecorderGathersInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{gate: make(chan struct{})}
		r, logs := recorder(sink)
		record(t, r, 0, 1)
		synctest.Wait() // the first event is on its way alone
		record(t, r, 1, 300)
		close(sink.gate)
		closeIt(t, r)

		var sizes []int
		for _, batch := range sink.batches {
			sizes = append(sizes, len(batch))
		}
		if !slices.Equal(sizes, []int{1, 256, 44}) {
			t.Errorf("written in batches of %v, want 1, 256, 44", sizes)
		}
		for i, id := range sink.sessions() {
			if id != fmt.Sprint(i) {
				t.Fatalf("event %d is %q", i, id)
			}
		}
		if n := logs.Len(); n != 0 {
			t.Errorf("%d log entries", n)
		}
	})
}

func TestRecorderHoldsBackWhileFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{gate: make(chan struct{})}
		r, logs := recorder(sink)
		record(t, r, 0, queueLength)

		// One caller gives up, with its event in the log and nowhere else...
		late := Event{Kind: "login", Outcome: Refused, Session: "late", Account: "a", Source: "192.0.2.1", Reason: "wrong-code"}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := r.Record(ctx, late); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("recording into a full queue: %v", err)
		}
		if held := time.Since(began); held != time.Second {
			t.Errorf("held back for %v, want 1s", held)
		}
		if got := logged(t, logs); !slices.Equal(got, []Event{late}) {
			t.Errorf("logged %v, want the event that was given up", got)
		}

		// ...another waits, and gets in as soon as there is room.
		waited := make(chan error)
		go func() { waited <- r.Record(context.Background(), Event{Session: "patient"}) }()
		synctest.Wait()
		select {
		case err := <-waited:
			t.Fatalf("not held back: %v", err)
		default:
		}
		close(sink.gate)
		if err := <-waited; err != nil {
			t.Error(err)
		}
		closeIt(t, r)
		got := sink.sessions()
		if len(got) != queueLength+1 || got[queueLength] != "patient" {
			t.Errorf("%d events stored, the last is %q", len(got), got[len(got)-1])
		}
	})
}

// A session's last event comes when its context has already ended.
func TestRecorderTakesFromEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{}
		r, _ := recorder(sink)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 50 {
			if err := r.Record(ctx, Event{}); err != nil {
				t.Fatal(err)
			}
		}
		closeIt(t, r)
		if n := len(sink.sessions()); n != 50 {
			t.Errorf("%d events stored, want 50", n)
		}
	})
}

func TestRecorderFailingSink(t *testing.T) {
	for _, test := range []struct {
		name           string
		sink           *fakeSink
		calls          int
		stored, logged int
		took           time.Duration
	}{
		{"once", &fakeSink{failures: 1}, 2, 1, 0, 100 * time.Millisecond},
		{"twice", &fakeSink{failures: 2}, 3, 1, 0, 600 * time.Millisecond},
		{"always", &fakeSink{failures: -1}, 3, 0, 1, 600 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				r, logs := recorder(test.sink)
				record(t, r, 0, 1) // of more, the first may go alone
				closeIt(t, r)
				if test.sink.calls != test.calls || len(test.sink.sessions()) != test.stored {
					t.Errorf("%d calls and %d events stored, want %d and %d",
						test.sink.calls, len(test.sink.sessions()), test.calls, test.stored)
				}
				if n := len(logged(t, logs)); n != test.logged {
					t.Errorf("%d events logged, want %d", n, test.logged)
				}
				if took := time.Since(began); took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
			})
		})
	}
}

// A failingSink sets what a Sink sets, and fails all the same, as where a commit fails.
type failingSink struct {
	t    *testing.T
	head Hash
}

func (s *failingSink) Append(_ context.Context, events []Event) error {
	for i := range events {
		if events[i].ID != 0 || !events[i].Hash.IsZero() {
			s.t.Errorf("event %d came with the ID and Hash of the try before", i)
		}
		s.head = Chain(s.head, events[i])
		events[i].ID, events[i].Hash = int64(i+1), s.head
	}
	return errDisk
}

// IDs and hashes that a failed try has set are another event's by the next.
func TestRecorderForgetsWhatAFailedTrySet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, logs := recorder(&failingSink{t: t})
		want := []Event{{Session: "0"}, {Session: "1"}}
		record(t, r, 0, 2)
		closeIt(t, r)
		if got := logged(t, logs); !slices.Equal(got, want) {
			t.Errorf("logged %v, want %v", got, want)
		}
	})
}

// What must be kept before its maker goes on is written past the queue, or lost as aloud.
func TestRecorderAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{gate: make(chan struct{}, 1)}
		r, logs := recorder(sink)
		record(t, r, 0, 3)
		synctest.Wait()
		if n := r.Waiting(); n != 3 {
			t.Errorf("%d events wait, want 3", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // the recorder's own tries take longer
		defer cancel()
		if err := r.Append(ctx, []Event{{Session: "change"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("into a sink that hangs: %v", err)
		}
		if got := logged(t, logs); len(got) != 1 || got[0].Session != "change" || r.Lost() != 1 {
			t.Errorf("logged %v, %d lost, want the change alone", got, r.Lost())
		}
		close(sink.gate)
		closeIt(t, r)
		if err := r.Append(t.Context(), []Event{{Session: "late"}}); err != nil {
			t.Errorf("after Close: %v", err)
		}
		if got := sink.sessions(); !slices.Equal(got, []string{"0", "1", "2", "late"}) || r.Waiting() != 0 {
			t.Errorf("stored %v, %d wait", got, r.Waiting())
		}
	})

	synctest.Test(t, func(t *testing.T) {
		r, logs := recorder(&failingSink{t: t})
		if err := r.Append(t.Context(), []Event{{Session: "0"}, {Session: "1"}}); !errors.Is(err, errDisk) {
			t.Errorf("got %v", err)
		}
		record(t, r, 2, 1)
		closeIt(t, r)
		if got := logged(t, logs); !slices.Equal(got, []Event{{Session: "0"}, {Session: "1"}, {Session: "2"}}) || r.Lost() != 3 {
			t.Errorf("logged %v, %d lost", got, r.Lost())
		}
	})
}

// A sink that hangs costs three timeouts a batch, and the recorder goes on after it.
func TestRecorderHangingSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{gate: make(chan struct{})}
		r, logs := recorder(sink)
		record(t, r, 0, 1)
		time.Sleep(time.Minute)
		if got := logged(t, logs); len(got) != 1 {
			t.Errorf("%d events logged, want the one that hung", len(got))
		}
		close(sink.gate)
		record(t, r, 1, 1)
		closeIt(t, r)
		if got := sink.sessions(); !slices.Equal(got, []string{"1"}) {
			t.Errorf("stored %v afterwards, want 1", got)
		}
	})
}

func TestRecorderClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{gate: make(chan struct{})}
		r, logs := recorder(sink)
		record(t, r, 0, queueLength)
		held := make(chan error)
		go func() { held <- r.Record(context.Background(), Event{Session: "held"}) }()
		synctest.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := r.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("closing over a sink that hangs: %v", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v, want 1s", took)
		}
		if err := <-held; !errors.Is(err, errClosed) {
			t.Errorf("the caller held back meanwhile: %v", err)
		}
		if n := len(logged(t, logs)); n != queueLength+1 {
			t.Errorf("%d events logged, want all %d", n, queueLength+1)
		}

		if err := r.Record(t.Context(), Event{Session: "after"}); !errors.Is(err, errClosed) {
			t.Errorf("recording after Close: %v", err)
		}
		if n := len(logged(t, logs)); n != queueLength+2 {
			t.Errorf("%d events logged, want %d", n, queueLength+2)
		}
		closeIt(t, r) // closing twice is no error
	})
}

func TestRecorderManyCallers(t *testing.T) {
	sink := &fakeSink{}
	r, _ := recorder(sink)
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() { record(t, r, i*500, 500) })
	}
	callers.Wait()
	closeIt(t, r)
	got := sink.sessions()
	slices.Sort(got)
	if got = slices.Compact(got); len(got) != 20*500 {
		t.Errorf("%d different events stored, want %d", len(got), 20*500)
	}
}

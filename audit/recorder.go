package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	queueLength = 4096 // events accepted and not yet written
	batchLength = 256  // events in one Append
	tries       = 3
	tryTimeout  = 5 * time.Second        // one Append
	firstPause  = 100 * time.Millisecond // between tries; then five times as long
)

var errClosed = errors.New("the recorder is closed")

// A Recorder writes events to a Sink in the background, in the order in which
// they were recorded. What the sink doesn't take is written to the log at error
// level, whole, so that no event vanishes without a trace.
//
// All methods are safe for concurrent use.
type Recorder struct {
	sink  Sink
	log   *zap.Logger
	slots chan struct{} // one element for each event accepted and not yet written
	done  chan struct{} // closed when run has returned
	lost  atomic.Int64  // events that are in the log only

	repeats    *repeats
	closing    chan struct{} // closed when Close begins
	closeOnce  sync.Once
	summarized chan struct{} // closed when summarize has returned

	ctx    context.Context // ends when Close has waited long enough
	cancel context.CancelFunc

	mu     sync.Mutex
	wake   sync.Cond // the queue has grown, or closed is true
	queue  []Event   // at most queueLength, as slots bounds it
	closed bool
}

// NewRecorder returns a Recorder whose goroutines run until Close.
func NewRecorder(sink Sink, log *zap.Logger) *Recorder {
	r := &Recorder{
		sink:  sink,
		log:   log,
		slots: make(chan struct{}, queueLength),
		done:  make(chan struct{}),

		repeats:    newRepeats(),
		closing:    make(chan struct{}),
		summarized: make(chan struct{}),
	}
	r.wake.L = &r.mu
	r.ctx, r.cancel = context.WithCancel(context.Background())
	go r.run()
	go r.summarize()
	return r
}

// Record takes e and returns once it is queued, which is before it is durable.
// While 4,096 events wait for the sink the caller is held back too, until ctx
// ends; ctx counts for nothing else. An error says that e is in the log only.
func (r *Recorder) Record(ctx context.Context, e Event) error {
	if err := r.enqueue(ctx, e); err != nil {
		r.lose([]Event{e}, err)
		return fmt.Errorf("audit: recording an event: %w", err)
	}
	return nil
}

// Append writes the events to the sink at once, past the queue, for who must know that they are
// kept before going on: an administrator's change. What the sink doesn't take is in the log, as
// Record's is, and the error says so. It may be called after Close.
func (r *Recorder) Append(ctx context.Context, events []Event) error {
	err := r.appendTo(ctx, events)
	if err != nil {
		r.lose(events, err)
	}
	return err
}

// Waiting returns how many events are accepted and not yet written: at most 4,096.
func (r *Recorder) Waiting() int { return len(r.slots) }

// Lost returns how many events the sink didn't take: they are in the log only.
func (r *Recorder) Lost() int64 { return r.lost.Load() }

// Close records what RecordRepeated has counted, refuses further events, waits until
// those queued are written, and returns. When ctx ends first, the rest goes to the log
// at once, and the error says so; a sink that ignores its context still holds Close up.
func (r *Recorder) Close(ctx context.Context) error {
	defer r.cancel()
	inTime := context.AfterFunc(ctx, r.cancel)
	r.closeOnce.Do(func() { close(r.closing) })
	<-r.summarized

	r.mu.Lock()
	r.closed = true
	r.wake.Signal()
	r.mu.Unlock()
	<-r.done
	if !inTime() {
		return fmt.Errorf("audit: closing the recorder, some events are in the log only: %w", context.Cause(ctx))
	}
	return nil
}

func (r *Recorder) enqueue(ctx context.Context, e Event) error {
	select {
	case r.slots <- struct{}{}: // also where ctx has ended: a session's last event mostly comes then
	default:
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("the queue is full: %w", context.Cause(ctx))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		<-r.slots
		return errClosed
	}
	r.queue = append(r.queue, e)
	r.wake.Signal()
	return nil
}

// run writes batches until the recorder is closed and the queue is empty.
func (r *Recorder) run() {
	defer close(r.done)
	for {
		batch := r.gather()
		if len(batch) == 0 {
			return
		}
		if err := r.write(batch); err != nil {
			r.lose(batch, err)
		}
		for range batch {
			<-r.slots
		}
	}
}

// gather waits for events and returns what is there, or nothing after Close.
func (r *Recorder) gather() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queue) == 0 && !r.closed {
		r.wake.Wait()
	}
	n := min(len(r.queue), batchLength)
	batch := r.queue[:n:n]
	r.queue = r.queue[n:]
	return batch
}

// write appends the batch, and tries again where that failed: a SQLite file
// may be busy for a moment, a database server may restart.
func (r *Recorder) write(batch []Event) error {
	pause := firstPause
	for try := 1; ; try++ {
		err := r.append(batch)
		if err == nil || try == tries {
			return err
		}
		select {
		case <-time.After(pause):
			pause *= 5
		case <-r.ctx.Done():
			return err
		}
	}
}

func (r *Recorder) append(batch []Event) error {
	ctx, cancel := context.WithTimeout(r.ctx, tryTimeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.appendTo(ctx, batch)
}

func (r *Recorder) appendTo(ctx context.Context, events []Event) error {
	err := r.sink.Append(ctx, events)
	if err != nil {
		for i := range events { // what it set counts for nothing, and must not stand in the log
			events[i].ID, events[i].Hash = 0, Hash{}
		}
	}
	return err
}

// lose counts and logs events that the sink didn't take.
func (r *Recorder) lose(events []Event, err error) {
	r.lost.Add(int64(len(events)))
	for _, e := range events {
		r.log.Error("audit event not stored", zap.Any("event", e), zap.Error(err))
	}
}

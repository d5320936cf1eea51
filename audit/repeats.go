package audit

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

const (
	repeatWindow = time.Minute
	maxRepeats   = 10_000 // networks that are told apart, with each of what they repeat
)

// RecordRepeated is Record for what one stranger can cause by the thousand, and what
// says little after the first time, such as attempts that a limit refused. Of events
// with the same kind, outcome, reason and source network (IPv4: /24, IPv6: /48) one a
// minute is written: the first at once and as it is, those that follow as one event
// with their number in Detail, itself included, when the minute is over or the recorder is closed. That
// one has the last one's time and address, and of the rest what all of them shared.
//
// Kind, outcome and reason must be from closed sets. When 10,000 different ones are
// being counted, further networks are counted together, with Source "".
//
// Only the first can hold up its caller and only its error is returned, as Record's.
// A crash loses the count of the current minute, and nothing else.
func (r *Recorder) RecordRepeated(ctx context.Context, e Event) error {
	if r.repeats.count(e) {
		return nil
	}
	return r.Record(ctx, e)
}

// summarize records what was counted, each time a minute is over, until Close.
func (r *Recorder) summarize() {
	defer close(r.summarized)
	for closing := false; !closing; {
		var over <-chan time.Time
		if until, ok := r.repeats.next(); ok {
			over = time.After(time.Until(until))
		}
		var events []Event
		select {
		case <-over:
			events = r.repeats.due()
		case <-r.repeats.opened:
		case <-r.closing:
			events, closing = r.repeats.close(), true
		}
		for _, e := range events {
			r.Record(r.ctx, e) // where it can't, the event is in the log
		}
	}
}

// repeats counts events between those that are written.
type repeats struct {
	opened chan struct{} // there is a window again, where there was none

	mu      sync.Mutex
	windows map[repeatKey]*window
	order   []*window // the same, by until: all are equally long
	closed  bool
}

// A repeatKey is what makes an event a repetition of another.
type repeatKey struct {
	kind    string
	outcome Outcome
	reason  string
	network netip.Prefix // not valid: no address, or one network too many
}

// A window is the minute after an event was written.
type window struct {
	key    repeatKey
	until  time.Time
	count  int   // of the events since
	shared Event // the last of them, without what they don't have in common
}

func newRepeats() *repeats {
	return &repeats{opened: make(chan struct{}, 1), windows: make(map[repeatKey]*window)}
}

// count says whether it took e. If not, e is the first, and the caller's to record.
func (r *repeats) count(e Event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	key := repeatKey{e.Kind, e.Outcome, e.Reason, sourceNetwork(e.Source)}
	w := r.windows[key]
	if w == nil && len(r.windows) >= maxRepeats {
		key.network = netip.Prefix{}
		w = r.windows[key]
	}
	if w == nil {
		w = &window{key: key}
		r.windows[key] = w
		r.enter(w)
		if len(r.order) == 1 {
			select {
			case r.opened <- struct{}{}:
			default:
			}
		}
		return false
	}
	w.add(e)
	return true
}

// enter begins the window's minute.
func (r *repeats) enter(w *window) {
	w.until = time.Now().Add(repeatWindow)
	r.order = append(r.order, w)
}

// next returns when the next minute is over, if there is one.
func (r *repeats) next() (time.Time, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.order) == 0 {
		return time.Time{}, false
	}
	return r.order[0].until, true
}

// due ends the minutes that are over and returns what was counted in them. Writing
// that begins another minute: or else a steady flood would be two events a minute.
func (r *repeats) due() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var events []Event
	now := time.Now()
	for len(r.order) > 0 && !r.order[0].until.After(now) {
		w := r.order[0]
		r.order[0], r.order = nil, r.order[1:]
		if w.count == 0 {
			delete(r.windows, w.key)
			continue
		}
		events = append(events, w.summary())
		w.count, w.shared = 0, Event{}
		r.enter(w)
	}
	return events
}

// close returns all that was counted, and nothing is counted after it.
func (r *repeats) close() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var events []Event
	for _, w := range r.order {
		if w.count > 0 {
			events = append(events, w.summary())
		}
	}
	r.closed, r.windows, r.order = true, nil, nil
	return events
}

func (w *window) add(e Event) {
	for _, field := range []struct{ new, shared *string }{
		{&e.Session, &w.shared.Session},
		{&e.Account, &w.shared.Account},
		{&e.Program, &w.shared.Program},
		{&e.Factor, &w.shared.Factor},
		{&e.Rule, &w.shared.Rule},
	} {
		if w.count > 0 && *field.new != *field.shared {
			*field.new = ""
		}
	}
	w.count++
	w.shared = e
}

func (w *window) summary() Event {
	e := w.shared
	if w.key.network.IsValid() {
		e.Detail = fmt.Sprintf("stands for %d from %s within a minute", w.count, w.key.network)
	} else {
		e.Source, e.Detail = "", fmt.Sprintf("stands for %d within a minute", w.count)
	}
	return e
}

// sourceNetwork is what one stranger has at least; IPv4 in IPv6 is IPv4.
func sourceNetwork(source string) netip.Prefix {
	addr, err := netip.ParseAddr(source)
	if err != nil {
		return netip.Prefix{}
	}
	addr = addr.Unmap()
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	network, _ := addr.Prefix(bits) // the only error is a number of bits that no address has
	return network
}

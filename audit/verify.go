package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
)

const (
	verifyPage  = 1000
	verifyTries = 5
	verifyPause = time.Second // between tries, for a purge to come to its end
)

// A Report says what was verified: all events, or those before the first that is wrong.
type Report struct {
	Events    int64     `json:"events"`
	Unchained int64     `json:"unchained"` // of these, from before there was a chain
	First     int64     `json:"first"`     // IDs; 0 where there are no events
	Last      int64     `json:"last"`
	Head      Hash      `json:"head,omitzero"` // the last one's
	HeadTime  time.Time `json:"head_time,omitzero"`
	Broken    *Break    `json:"broken,omitempty"` // nil: nothing is wrong
}

// A Break is the first event that is wrong.
type Break struct {
	ID      int64  `json:"id,omitempty"`   // 0: of a line that is no event
	Line    int64  `json:"line,omitempty"` // of a file, from 1
	Problem string `json:"problem"`        // for people, such as "event 17 was changed, or one before it was removed"
}

// Verify computes the chain of all events anew, from the last one purged, and reports; each, which may be
// nil, is told every event that is as it should be, once. What is purged meanwhile is no break.
// An error, each's included, says that it couldn't tell.
func Verify(ctx context.Context, source Source, each func(Event) error) (Report, error) {
	var told int64
	once := func(e Event) error {
		if each == nil || e.ID <= told {
			return nil
		}
		told = e.ID
		return each(e)
	}
	for try := 1; ; try++ {
		purged, err := readMark(ctx, source, ChainMark)
		if err != nil {
			return Report{}, err
		}
		c := chain{hash: purged.hash}
		if err := c.walk(ctx, source, once); err != nil || c.report.Broken == nil {
			return c.report, err
		}
		now, err := readMark(ctx, source, ChainMark)
		if err != nil || now == purged {
			return c.report, err
		}
		if try == verifyTries {
			return c.report, errors.New("audit: verifying the events: they are being purged at the same time: try again later")
		}
		select {
		case <-time.After(verifyPause):
		case <-ctx.Done():
			return c.report, ctx.Err()
		}
	}
}

// A chain is what is known of the events before the next one.
type chain struct {
	hash   Hash // what the next one goes on from
	report Report
}

// walk follows the store's events until one is wrong.
func (c *chain) walk(ctx context.Context, source Source, each func(Event) error) error {
	after := int64(math.MinInt64) // below the first ID there may be what others don't see
	for {
		events, err := source.Events(ctx, Filter{After: after, Oldest: true, Limit: verifyPage})
		if err != nil || len(events) == 0 {
			return err
		}
		for _, e := range events {
			if e.ID <= after {
				return fmt.Errorf("audit: verifying the events: the store gave event %d after event %d", e.ID, after)
			}
			after = e.ID
			if problem := c.check(e); problem != "" {
				c.report.Broken = &Break{ID: e.ID, Problem: problem}
				return nil
			}
			c.add(e)
			if err := each(e); err != nil {
				return err
			}
		}
	}
}

// check returns what is wrong with the next event, or "".
func (c *chain) check(e Event) string {
	switch {
	case e.ID < 1:
		return fmt.Sprintf("event %d was inserted: no store gives such an ID", e.ID)
	case e.Hash.IsZero() && c.hash.IsZero():
		return "" // from before there was a chain
	case e.Hash.IsZero():
		return fmt.Sprintf("event %d has no hash, although those before it have one: it was changed or inserted", e.ID)
	case e.Hash != Chain(c.hash, e):
		return fmt.Sprintf("event %d was changed, or one before it was removed or inserted", e.ID)
	}
	return ""
}

func (c *chain) add(e Event) {
	r := &c.report
	if r.Events == 0 {
		r.First = e.ID
	}
	if e.Hash.IsZero() {
		r.Unchained++
	}
	r.Events++
	r.Last, r.Head, r.HeadTime = e.ID, e.Hash, e.Time
	c.hash = e.Hash
}

// VerifyFile reads what an Exporter wrote and reports: each whole line chains onto the one
// before (the first one onto any), and the store has the same event or has purged it. So it
// shows what Verify can't: that whoever can write to the store computed its chain anew, or cut
// off its end. Half a line at the end counts as not written yet. An error says that it
// couldn't tell.
func VerifyFile(ctx context.Context, r io.Reader, source Source) (Report, error) {
	f := exported{source: source}
	lines := bufio.NewReaderSize(r, 64<<10)
	for number := int64(1); ; number++ {
		line, err := nextLine(lines)
		if errors.Is(err, io.EOF) {
			return f.chain.report, nil
		}
		if err != nil {
			return f.chain.report, fmt.Errorf("audit: reading line %d: %w", number, err)
		}
		broken, err := f.line(ctx, line)
		if err != nil {
			return f.chain.report, err
		}
		if broken != nil {
			broken.Line = number
			f.chain.report.Broken = broken
			return f.chain.report, nil
		}
	}
}

// nextLine returns a line with its end, what is too long for one cut off; io.EOF where
// there is no whole one.
func nextLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for len(line) <= maxLine {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
	return line, nil
}

// exported is a file beside its store.
type exported struct {
	source Source
	chain  chain
	page   []Event // the store's, from the last one looked up
	purged link    // the last one that the store has purged, when we last looked
}

// line returns what is wrong with the next line, or nil.
func (f *exported) line(ctx context.Context, line []byte) (*Break, error) {
	e, ok := f.parse(line)
	if !ok {
		return &Break{Problem: "the line is no event as imapwarden writes it"}, nil
	}
	problem, before := "", f.chain.report
	switch {
	case e.ID <= before.Last:
		problem = fmt.Sprintf("event %d stands behind event %d: lines were changed, or the store was restored or replaced", e.ID, before.Last)
	case before.Events > 0: // the first has nothing to chain onto
		problem = f.chain.check(e)
	}
	if problem == "" {
		var err error
		if problem, err = f.compare(ctx, e); err != nil {
			return nil, err
		}
	}
	if problem != "" {
		return &Break{ID: e.ID, Problem: problem}, nil
	}
	f.chain.add(e)
	return nil, nil
}

// parse reads a line, if it has the very octets that we write: JSON has more than one reading
// for some that we don't, such as a name that stands there twice.
func (f *exported) parse(line []byte) (Event, bool) {
	e, err := readLine(line)
	if err != nil {
		return Event{}, false
	}
	var b bytes.Buffer
	return e, writeLine(&b, e) == nil && bytes.Equal(b.Bytes(), line)
}

// compare returns how the store contradicts the file's event, or "".
func (f *exported) compare(ctx context.Context, e Event) (string, error) {
	if e.ID > f.purged.id {
		stored, ok, err := f.stored(ctx, e.ID)
		switch {
		case err != nil:
			return "", err
		case ok && !same(e, stored):
			return fmt.Sprintf("event %d isn't the same in the store as in the file: one of them was changed", e.ID), nil
		case ok:
			return "", nil
		}
		if f.purged, err = readMark(ctx, f.source, ChainMark); err != nil {
			return "", err
		}
	}
	switch {
	case e.ID == f.purged.id && e.Hash != f.purged.hash:
		return fmt.Sprintf("event %d was purged from the store with another hash than it has in the file: one of them was changed", e.ID), nil
	case e.ID <= f.purged.id:
		return "", nil
	case len(f.page) == 0:
		return fmt.Sprintf("the store ends before event %d, which is in the file: events were removed from its end, or it was restored or replaced", e.ID), nil
	}
	return fmt.Sprintf("the store doesn't have event %d, which is in the file, and didn't purge it: it was removed", e.ID), nil
}

// stored returns the store's event with this ID, if it has it. IDs are asked for in
// ascending order.
func (f *exported) stored(ctx context.Context, id int64) (e Event, ok bool, err error) {
	for len(f.page) > 0 && f.page[0].ID < id {
		f.page = f.page[1:]
	}
	if len(f.page) == 0 {
		f.page, err = f.source.Events(ctx, Filter{After: id - 1, Oldest: true, Limit: verifyPage})
	}
	if err != nil || len(f.page) == 0 || f.page[0].ID != id {
		return Event{}, false, err
	}
	return f.page[0], true, nil
}

// same says whether two events are alike in all fields, whatever the zone of their times.
func same(a, b Event) bool {
	equal := a.Time.Equal(b.Time)
	a.Time, b.Time = time.Time{}, time.Time{}
	return equal && a == b
}

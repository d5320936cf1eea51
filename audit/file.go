package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// fileMark is the mark in the store that says which event the file ended with, for when
// the file itself can't: it was rotated away while nobody followed the store.
const fileMark = "audit-file"

const (
	exportPause = time.Second
	exportGrace = 5 * time.Second // for what is left when Run is to end
	exportPage  = 1000
	maxLine     = 1 << 20 // octets; an event has some 500
	maxTroubles = 20      // causes that are told apart until the file is written again
)

// A Source is where events are read: the store.
type Source interface {
	// Events returns those that the filter chooses, oldest first.
	Events(ctx context.Context, f Filter) ([]Event, error)
	// Mark returns the value under name, or "" where there is none.
	Mark(ctx context.Context, name string) (string, error)
	// SetMark creates or replaces it.
	SetMark(ctx context.Context, name, value string) error
}

// A link is a place in the chain: an event's ID and Hash. The zero link is its beginning.
type link struct {
	id   int64
	hash Hash
}

func linkOf(e Event) link { return link{e.ID, e.Hash} }

// readMark returns the link under name, or the zero link where there is none.
func readMark(ctx context.Context, source Source, name string) (link, error) {
	value, err := source.Mark(ctx, name)
	if err != nil {
		return link{}, fmt.Errorf("audit: reading the mark %s: %w", name, err)
	}
	if value == "" {
		return link{}, nil
	}
	id, hash, err := ParseMark(value)
	if err != nil {
		return link{}, fmt.Errorf("audit: reading the mark %s: %w", name, err)
	}
	return link{id, hash}, nil
}

// An Exporter copies every event of the store to a file, as one JSON object a line, for
// whatever collects them from there. It follows the store and not the Recorder: so events
// that commands write to the store themselves are in it, and a full disk or a crash loses
// nothing and writes nothing twice. The file may be moved or truncated at any time.
//
// Its fields are set before Run, which is called once.
type Exporter struct {
	Path   string // made with mode 0640 where it isn't there; never a link
	Source Source
	Log    *zap.Logger

	file     *os.File // nil: not open
	size     int64    // octets in it, all of them whole lines
	last     link     // what is written, up to here
	known    bool     // last was found out
	foreign  link     // what the file ends with and the store doesn't know
	marked   link     // what the store's mark says
	troubles []string // errors that were logged since the file was last written

	passed atomic.Int64 // when all that was stored had been written, in microseconds since 1970; 0: not yet
}

// Passed returns when all that was in the store was last seen to be in the file; the zero time
// until then. It may be called at any time.
func (x *Exporter) Passed() time.Time {
	if at := x.passed.Load(); at != 0 {
		return time.UnixMicro(at)
	}
	return time.Time{}
}

// Unexported returns the oldest event of the store that no Exporter has noted as written; ok is
// false where there is none. It is for a store whose events are exported: what was never is all of them.
func Unexported(ctx context.Context, source Source) (oldest Event, ok bool, err error) {
	last, err := readMark(ctx, source, fileMark)
	if err != nil {
		return Event{}, false, err
	}
	events, err := source.Events(ctx, Filter{After: last.id, Oldest: true, Limit: 1})
	if err != nil || len(events) == 0 {
		return Event{}, false, err
	}
	return events[0], true, nil
}

// Run follows the store about once a second until ctx ends, writes within five seconds
// what is there by then, and returns nil. So end it after the Recorder is closed. What goes
// wrong is logged, once for each cause, and tried again.
func (x *Exporter) Run(ctx context.Context) error {
	defer x.close()
	for ctx.Err() == nil {
		if err := x.export(ctx); ctx.Err() == nil {
			x.note(err)
		}
		select {
		case <-time.After(exportPause):
		case <-ctx.Done():
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), exportGrace)
	defer cancel()
	x.note(x.export(ctx))
	return nil
}

func (x *Exporter) note(err error) {
	switch {
	case err == nil && x.troubles != nil:
		x.troubles = nil
		x.Log.Info("the audit file is written again", zap.String("file", x.Path))
	case err != nil && len(x.troubles) < maxTroubles && !slices.Contains(x.troubles, err.Error()):
		x.troubles = append(x.troubles, err.Error())
		x.Log.Error("the audit file can't be written: the events stay in the store and follow later, unless they are purged first",
			zap.String("file", x.Path), zap.Error(err))
	}
}

// export writes all that is in the store and not yet in the file.
func (x *Exporter) export(ctx context.Context) error {
	if err := x.open(ctx); err != nil {
		return err
	}
	for {
		events, err := x.next(ctx)
		if err != nil {
			return err
		}
		if err := x.append(events); err != nil {
			return err
		}
		if err := x.mark(ctx); err != nil {
			return err
		}
		if len(events) == 0 {
			x.passed.Store(time.Now().UnixMicro())
			return nil
		}
	}
}

// open opens the file, unless it is open and still the one under its path, and finds out
// which event is the last in it.
func (x *Exporter) open(ctx context.Context) error {
	if x.file != nil && !x.moved() {
		return nil
	}
	x.close()
	file, err := openRegular(x.Path)
	if err != nil {
		return fmt.Errorf("audit: opening the file: %w", err)
	}
	found, size, err := repair(file)
	if err == nil && !x.known && found == (link{}) {
		found, err = readMark(ctx, x.Source, fileMark)
	}
	if err != nil {
		file.Close()
		return err
	}
	// The file knows more than we do where lines were written and the write still failed, and
	// less where it was truncated or is another one.
	if !x.known || found.id > x.last.id && found != x.foreign {
		x.last, x.known = found, true
	}
	x.file, x.size = file, size
	return nil
}

// moved says whether the path names another file by now, none, or one that has lost octets.
func (x *Exporter) moved() bool {
	named, err := os.Lstat(x.Path)
	if err != nil {
		return true
	}
	open, err := x.file.Stat()
	return err != nil || !os.SameFile(named, open) || open.Size() < x.size
}

func (x *Exporter) close() {
	if x.file != nil {
		x.file.Close() // all of it is synced, or counts as not written
		x.file = nil
	}
}

// next returns the events behind the last one written, or none. It asks for that one too, and
// so notices a store that isn't the one it was.
func (x *Exporter) next(ctx context.Context) ([]Event, error) {
	for {
		events, err := x.Source.Events(ctx, Filter{After: max(x.last.id-1, 0), Oldest: true, Limit: exportPage})
		if err != nil {
			return nil, err
		}
		if x.last.id == 0 {
			return events, nil
		}
		if len(events) > 0 && events[0].ID == x.last.id {
			if events[0].Hash == x.last.hash {
				return events[1:], nil
			}
		} else if purged, err := readMark(ctx, x.Source, ChainMark); err != nil {
			return nil, err
		} else if purged.id >= x.last.id {
			x.skip(purged, events)
			return events, nil
		}
		if err := x.goBack(ctx); err != nil {
			return nil, err
		}
	}
}

// skip says what was purged before it could be written: the events from behind the last one
// to those that are left. IDs alone don't tell, for a store may leave some out.
func (x *Exporter) skip(purged link, left []Event) {
	if purged.id == x.last.id || len(left) > 0 && left[0].Hash == Chain(x.last.hash, left[0]) {
		return
	}
	last := purged.id
	if len(left) > 0 && left[0].ID <= last {
		last = left[0].ID - 1 // the rest was purged after we had read it
	}
	x.Log.Error("audit events were purged from the store before they were in the audit file: make room for it sooner, or raise audit.keep and audit.most",
		zap.String("file", x.Path), zap.Int64("after", x.last.id), zap.Int64("up_to", last))
	if last == purged.id {
		x.last = purged
	}
}

// goBack is for a store that doesn't know the last event in the file and didn't purge it:
// an older copy of it that was restored, another store, or one whose end was cut off. The
// store's own mark is then the place that both have, or else its beginning: better twice
// than never.
func (x *Exporter) goBack(ctx context.Context) error {
	to, err := readMark(ctx, x.Source, fileMark)
	if err != nil {
		return err
	}
	if to.id >= x.last.id {
		to = link{}
	}
	x.Log.Error("the store doesn't have the event that the audit file ends with: the store was restored, replaced or tampered with; events may be in the file twice",
		zap.String("file", x.Path), zap.Int64("event", x.last.id), zap.Int64("going_on_after", to.id))
	x.foreign, x.last = x.last, to
	return nil
}

// append writes the events, durably or not at all.
func (x *Exporter) append(events []Event) error {
	if len(events) == 0 {
		return nil
	}
	var lines bytes.Buffer
	for _, e := range events {
		if err := writeLine(&lines, e); err != nil {
			return err
		}
	}
	info, err := x.file.Stat()
	if err != nil {
		return fmt.Errorf("audit: looking at the file: %w", err)
	}
	_, err = x.file.Write(lines.Bytes())
	if err == nil {
		err = x.file.Sync()
	}
	if err != nil {
		// Half a batch must not look like a whole one. Where this fails too, repair sees to it.
		x.file.Truncate(info.Size())
		x.close()
		return fmt.Errorf("audit: appending to the file: %w", err)
	}
	x.size, x.last = info.Size()+int64(lines.Len()), linkOf(events[len(events)-1])
	return nil
}

// mark notes in the store what the file has.
func (x *Exporter) mark(ctx context.Context) error {
	if x.last == x.marked {
		return nil
	}
	if err := x.Source.SetMark(ctx, fileMark, FormatMark(x.last.id, x.last.hash)); err != nil {
		return err
	}
	x.marked = x.last
	return nil
}

// openRegular opens a file for appending and reading, and makes it where there is none.
// Neither a link nor a pipe nor a device will do: somebody may have put it in our way.
func openRegular(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o640)
	if err == nil {
		if err := errors.Join(file.Chmod(0o640), syncFolder(path)); err != nil { // whatever the umask says
			file.Close()
			return nil, err
		}
		return file, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	before, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s isn't a regular file: give the path of one, or of none", path)
	}
	file, err = os.OpenFile(path, os.O_RDWR|os.O_APPEND|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if now, err := file.Stat(); err != nil || !os.SameFile(before, now) {
		file.Close()
		return nil, fmt.Errorf("%s was replaced while it was opened", path)
	}
	return file, nil
}

// syncFolder makes a new file's name durable: or else the mark would outlive the file.
func syncFolder(path string) error {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// repair cuts off what a crash has left of a line at the file's end, and returns the last whole
// line's link, if there is one, and the size. It changes nothing in a file that isn't ours.
func repair(file *os.File) (last link, size int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return link{}, 0, fmt.Errorf("audit: looking at the file: %w", err)
	}
	end := make([]byte, min(info.Size(), 2*maxLine))
	if _, err := file.ReadAt(end, info.Size()-int64(len(end))); err != nil && err != io.EOF {
		return link{}, 0, fmt.Errorf("audit: reading the file's end: %w", err)
	}
	cut := bytes.LastIndexByte(end, '\n') + 1
	whole, tail := end[:cut], end[cut:]
	if cut > 0 {
		e, err := readLine(whole[bytes.LastIndexByte(whole[:cut-1], '\n')+1:])
		if err != nil {
			return link{}, 0, fmt.Errorf("audit: the last line of %s is no audit event: move the file away, or name another one", file.Name())
		}
		last = linkOf(e)
	}
	if len(tail) > 0 {
		if !beginsLine(tail) || len(tail) > maxLine {
			return link{}, 0, fmt.Errorf("audit: the end of %s is no part of an audit event: move the file away, or name another one", file.Name())
		}
		if err := file.Truncate(info.Size() - int64(len(tail))); err != nil {
			return link{}, 0, fmt.Errorf("audit: cutting half a line off the file: %w", err)
		}
	}
	if err := file.Sync(); err != nil { // lines that a crashed process wrote
		return link{}, 0, fmt.Errorf("audit: writing the file through to the disk: %w", err)
	}
	return last, info.Size() - int64(len(tail)), nil
}

// beginsLine says whether tail may be the front of a line of ours. A file system that
// crashed may have filled the rest with zeros.
func beginsLine(tail []byte) bool {
	const front = `{"id":`
	tail = bytes.TrimRight(tail, "\x00")
	return bytes.HasPrefix([]byte(front), tail[:min(len(tail), len(front))])
}

// writeLine writes the event as it stands in a file: its JSON and a line end.
func writeLine(b *bytes.Buffer, e Event) error {
	encoder := json.NewEncoder(b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(e); err != nil {
		return fmt.Errorf("audit: writing event %d as JSON: %w", e.ID, err)
	}
	return nil
}

// readLine reads what writeLine wrote.
func readLine(line []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		return Event{}, fmt.Errorf("audit: reading an event: %w", err)
	}
	if e.ID <= 0 {
		return Event{}, errors.New("audit: reading an event: it has no id")
	}
	return e, nil
}

package policy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// lookEvery is how often Watch looks at a file.
const lookEvery = 10 * time.Second

// A File is a value that stands in a file, and that is read again when the file changes. Make
// one with [Open]. It is safe for concurrent use; whoever got a value may keep it.
type File[T any] struct {
	path  string
	parse func(r io.Reader, size int64) (T, error)
	value atomic.Pointer[T]

	// Of Open and then of Watch alone: what the file looked like when it was read last, and
	// what was wrong with it then.
	seen      look
	complaint string
}

// Open reads the file with parse, which is given as many octets as the file has, and doesn't
// name it in its errors. The error wraps the cause, such as [fs.ErrNotExist]. The File is usable
// also then: it has no value until Watch finds a file that can be read.
func Open[T any](path string, parse func(r io.Reader, size int64) (T, error)) (*File[T], error) {
	f := &File[T]{path: path, parse: parse, seen: lookAt(path)}
	err := f.read()
	return f, err
}

// Value returns what the newest version of the file that could be read says. It is false
// where there was none yet.
func (f *File[T]) Value() (T, bool) {
	if value := f.value.Load(); value != nil {
		return *value, true
	}
	var none T
	return none, false
}

// Watch looks at the file again and again, 0: every 10 s, until ctx ends, and reads it once it
// has changed and then stays as it is for a second: half a list is not the list. What can't be
// read leaves the last value. told learns of each change once, with the error or nil; it
// mustn't be nil. Only one Watch may run.
func (f *File[T]) Watch(ctx context.Context, every time.Duration, told func(path string, err error)) {
	if every <= 0 {
		every = lookEvery
	}
	settle := min(every, time.Second)
	timer := time.NewTimer(every)
	defer timer.Stop()
	last := f.seen
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		now := lookAt(f.path)
		if !now.same(last) {
			last = now
			timer.Reset(settle)
			continue
		}
		timer.Reset(every)
		if !now.same(f.seen) {
			f.seen = now
			f.readAgain(told)
		}
	}
}

// readAgain reads a file that has changed, and says so.
func (f *File[T]) readAgain(told func(string, error)) {
	known := f.complaint
	err := f.read()
	if f.seen == (look{}) && f.complaint == known {
		return
	}
	told(f.path, err)
}

// read reads the file, and leaves the value as it is where that fails. Where it was the system
// that didn't let us, this may end without a trace on the file, so the next look tries again.
func (f *File[T]) read() error {
	value, err := f.parsed()
	if err != nil {
		err = fmt.Errorf("policy: reading %s: %w", f.path, err)
		f.complaint = err.Error()
		if _, system := errors.AsType[syscall.Errno](err); system {
			f.seen = look{}
		}
		return err
	}
	f.complaint = ""
	f.value.Store(&value)
	return nil
}

func (f *File[T]) parsed() (value T, err error) {
	// A pipe would make us wait for somebody who writes into it.
	switch info, err := os.Stat(f.path); {
	case err != nil:
		return value, reason(err)
	case !info.Mode().IsRegular():
		return value, errors.New("must be a regular file")
	}
	file, err := os.Open(f.path)
	if err != nil {
		return value, reason(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return value, reason(err)
	}
	value, err = f.parse(io.LimitReader(file, info.Size()), info.Size())
	return value, reason(err)
}

// reason is what the system said, without the path that the message names anyway.
func reason(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// A look is what tells one version of a file from another without reading it. The zero value
// is none at all.
type look struct {
	info fs.FileInfo // nil: there is nothing to see
	err  string      // why
}

func lookAt(path string) look {
	info, err := os.Stat(path) // of what a symbolic link names, so that one that moves shows
	if err != nil {
		return look{err: err.Error()}
	}
	return look{info: info}
}

func (l look) same(other look) bool {
	if l.info == nil || other.info == nil {
		return l == other
	}
	a, b := l.info, other.info
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

package auth

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A failingDisk can't write, for the reason that it has.
type failingDisk struct {
	osDisk
	reason error
}

func (d failingDisk) write(file *os.File, _ string) error {
	return &fs.PathError{Op: "write", Path: file.Name(), Err: d.reason}
}

func TestRotateSaysWhatToDoAboutTheDisk(t *testing.T) {
	for reason, advice := range map[syscall.Errno]string{
		syscall.ENOSPC: "its disk is full: make room",
		syscall.EDQUOT: "its disk is full: make room",
		syscall.EACCES: "must be able to write its folder",
		syscall.EROFS:  "must be able to write its folder",
		syscall.EIO:    "",
	} {
		r := newRoom(t, 0)
		r.keys.file.disk = failingDisk{reason: reason}
		_, err := r.keys.Rotate(t.Context(), r.records)
		if !errors.Is(err, reason) || !strings.Contains(err.Error(), advice) {
			t.Errorf("%v: %v", reason, err)
			continue
		}
		for _, other := range []string{"make room", "must be able to write"} {
			if !strings.Contains(advice, other) && strings.Contains(err.Error(), other) {
				t.Errorf("%v: misleading: %v", reason, err)
			}
		}
	}
}

// That somebody else is about it is an expected no.
func TestRotatingIsARefusal(t *testing.T) {
	if refusal, ok := errors.AsType[*Refusal](ErrRotating); !ok || refusal.Reason != AlreadyRotating {
		t.Errorf("%v is no refusal", ErrRotating)
	}
}

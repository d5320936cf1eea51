package audit

import (
	"os/signal"
	"syscall"
	"testing"
)

// limitFileSize makes all files that are longer as full as a disk, until lift is called.
func limitFileSize(t *testing.T, octets int64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ) // write then fails with EFBIG
	var before syscall.Rlimit
	must(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before))
	set := func(limit syscall.Rlimit) { must(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)) }
	set(syscall.Rlimit{Cur: uint64(octets), Max: before.Max})
	lift = func() { set(before) }
	t.Cleanup(lift)
	return lift
}

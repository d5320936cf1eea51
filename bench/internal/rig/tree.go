package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is the unit of times in /proc/PID/stat, USER_HZ, on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// A stat is what we read of /proc/PID/stat.
type stat struct {
	parent int
	reaped time.Duration // of children that have ended, and their children
}

func readStat(id int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id))
	if err != nil {
		return stat{}, err
	}
	// The name, in brackets, may hold anything, so fields are counted from its end: state, ppid.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const parent, childUser, childSystem = 1, 13, 14
	if len(fields) <= childSystem {
		return stat{}, fmt.Errorf("reading /proc/%d/stat: it is too short", id)
	}
	var n [3]int
	for i, f := range []int{parent, childUser, childSystem} {
		if n[i], err = strconv.Atoi(fields[f]); err != nil {
			return stat{}, err
		}
	}
	return stat{n[0], time.Duration(n[1]+n[2]) * clockTick}, nil
}

// descendants are the ids of a process and all that it has started, as far as their parents
// live.
func descendants(root int) ([]int, error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, folder := range folders {
		id, err := strconv.Atoi(filepath.Base(folder))
		if err != nil {
			continue
		}
		if s, err := readStat(id); err == nil { // else it has just ended
			children[s.parent] = append(children[s.parent], id)
		}
	}
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// cpuOf is what the processes and those that they have waited for have used.
func cpuOf(tree []int) (time.Duration, error) {
	sum := time.Duration(0)
	for _, id := range tree {
		const scheduler = 2 // CPUCLOCK_SCHED in the kernel's posix-timers.h, see clock_getcpuclockid(3)
		var t unix.Timespec
		if err := unix.ClockGettime(^int32(id)<<3|scheduler, &t); err != nil {
			return 0, fmt.Errorf("reading the CPU clock of process %d: %w", id, err)
		}
		s, err := readStat(id)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(t.Nano()) + s.reaped
	}
	return sum, nil
}

// pssOf passes over processes that have just ended.
func pssOf(tree []int) (int64, error) {
	sum := int64(0)
	for _, id := range tree {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", id))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue
		}
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				if err != nil {
					return 0, err
				}
				sum += n << 10
			}
		}
	}
	return sum, nil
}

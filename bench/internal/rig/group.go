package rig

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A group is a control group (Linux's Documentation/admin-guide/cgroup-v2.rst), below ours. It
// counts the CPU time of all processes that were ever in it, without any controller.
type group struct {
	path   string
	folder *os.File
}

var groups atomic.Int64

// newGroup returns nil where there is no cgroup v2, or not for us.
func newGroup() *group {
	parent := ourGroup()
	if parent == "" {
		return nil
	}
	g := &group{path: filepath.Join(parent, fmt.Sprintf("imapwarden-bench-%d-%d", os.Getpid(), groups.Add(1)))}
	if os.Mkdir(g.path, 0o755) != nil {
		return nil
	}
	var err error
	if g.folder, err = os.Open(g.path); err != nil {
		os.Remove(g.path)
		return nil
	}
	if _, err := g.cpu(); err != nil {
		g.remove()
		return nil
	}
	return g
}

// ourGroup is the folder of the one that we are in, or "".
func ourGroup() string {
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return ""
	}
	defer mounts.Close()
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	path := ""
	for line := range strings.Lines(string(own)) {
		if rest, ok := strings.CutPrefix(line, "0::"); ok { // the hierarchy of version 2
			path = strings.TrimSpace(rest)
		}
	}
	for in := bufio.NewScanner(mounts); path != "" && in.Scan(); {
		if fields := strings.Fields(in.Text()); len(fields) > 2 && fields[2] == "cgroup2" {
			return filepath.Join(fields[1], path)
		}
	}
	return ""
}

func (g *group) cpu() (time.Duration, error) {
	text, err := os.ReadFile(filepath.Join(g.path, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("usage_usec ")); ok {
			n, err := strconv.ParseInt(string(bytes.TrimSpace(rest)), 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("%s/cpu.stat doesn't say usage_usec", g.path)
}

func (g *group) processes() ([]int, error) {
	text, err := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var ids []int
	for _, field := range strings.Fields(string(text)) {
		id, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// remove kills what is left in it: these are processes that ours have started.
func (g *group) remove() error {
	if g == nil {
		return nil
	}
	g.folder.Close()
	var err error
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err = os.Remove(g.path); err == nil {
			return nil
		}
		left, _ := g.processes() // it may be gone
		for _, id := range left {
			syscall.Kill(id, syscall.SIGKILL)
		}
	}
	return fmt.Errorf("removing a control group: %w", err)
}

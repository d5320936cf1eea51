package rig

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestProcess has a command whose child works and ends, and whose other child stays.
func TestProcess(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	command := exec.Command("sh", "-c", `(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done)
		sleep 1000 &
		echo $!; wait`)
	command.Stdout = in
	p, err := Start(command, filepath.Join(t.TempDir(), "log"))
	in.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Error(err)
	}

	tree, err := descendants(command.Process.Pid)
	if err != nil || len(tree) != 2 {
		t.Errorf("by descent: processes %v, error %v; want two", tree, err)
	}
	found, err := p.tree()
	if err != nil || len(found) != 2 {
		t.Errorf("processes %v, error %v; want two", found, err)
	}
	used, err := p.CPU()
	if err != nil {
		t.Error(err)
	}
	counted, err := cpuOf(tree)
	if err != nil {
		t.Error(err)
	}
	if used < clockTick || (used-counted).Abs() > used/2+2*clockTick {
		t.Errorf("CPU %s, and %s by descent; want the ended child's in both", used, counted)
	}
	if pss, err := p.PSS(); err != nil || pss < 100<<10 {
		t.Errorf("PSS %d, error %v", pss, err)
	}

	began := time.Now()
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > Patience/2 {
		t.Errorf("it took %s to end", took)
	}
	for _, id := range tree {
		// One that has ended and that init hasn't noticed has no command line.
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", id)); err == nil && len(line) > 0 {
			t.Errorf("process %d is still there", id)
		}
	}
}

func TestStopEarly(t *testing.T) {
	command := exec.Command("true")
	p, err := Start(command, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	<-p.ended
	if err := p.Stop(); err == nil {
		t.Error("no error, although it had ended before")
	}
}

package rig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// A Process is a program that runs, with all processes that it starts.
type Process struct {
	command *exec.Cmd
	group   *group // nil: this machine has none for us, and the tree is found by descent
	log     string
	ended   chan struct{} // closed; err is set then
	err     error
}

// Start starts the command in a control group of its own, where the machine has cgroup v2 and
// lets us. What it writes goes to the log file, except where the command says otherwise. It
// doesn't outlive us, and hears nothing of a Ctrl-C: that is ours to handle.
func Start(command *exec.Cmd, log string) (*Process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if command.Stdout == nil {
		command.Stdout = file
	}
	command.Stderr = file
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	p := &Process{command: command, log: log, ended: make(chan struct{})}
	if p.group = newGroup(); p.group != nil {
		command.SysProcAttr.UseCgroupFD, command.SysProcAttr.CgroupFD = true, int(p.group.folder.Fd())
	}
	if err := command.Start(); err != nil {
		p.group.remove()
		return nil, err
	}
	go func() {
		p.err = command.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Ready calls try until it succeeds. It fails when the process ends instead, and when that
// takes longer than Patience.
func (p *Process) Ready(try func() error) error {
	var err error
	for deadline := time.Now().Add(Patience); time.Now().Before(deadline); {
		if err = try(); err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended instead of listening: %w\n%s", p.command.Path, p.err, p.LastWords())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s doesn't listen: %w\n%s", p.command.Path, err, p.LastWords())
}

// Stop ends it and all that it started, and waits for that. It is an error if it had ended
// before, or ends badly.
func (p *Process) Stop() error {
	select {
	case <-p.ended:
		p.group.remove()
		return fmt.Errorf("%s ended early: %w\n%s", p.command.Path, p.why(), p.LastWords())
	default:
	}
	p.command.Process.Signal(syscall.SIGTERM) // an error says that it has ended
	var err error
	select {
	case <-p.ended:
		if p.err != nil && !endedBy(p.command, syscall.SIGTERM) {
			err = fmt.Errorf("%s ended badly: %w\n%s", p.command.Path, p.err, p.LastWords())
		}
	case <-time.After(Patience):
		p.command.Process.Kill()
		<-p.ended
		err = fmt.Errorf("%s didn't end on SIGTERM", p.command.Path)
	}
	syscall.Kill(-p.command.Process.Pid, syscall.SIGKILL) // its process group, if any of it is left
	return errors.Join(err, p.group.remove())
}

// endedBy says whether a signal ended the command, which is well where it is our own.
func endedBy(command *exec.Cmd, signal syscall.Signal) bool {
	status, ok := command.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == signal
}

func (p *Process) why() error {
	if p.err == nil {
		return errors.New("without an error")
	}
	return p.err
}

// LastWords are the end of its log, for people to read.
func (p *Process) LastWords() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-6):], nil))
}

// CPU is how much it and its children have used so far, user and system, also those that have
// ended.
func (p *Process) CPU() (time.Duration, error) {
	if p.group != nil {
		return p.group.cpu()
	}
	tree, err := p.tree()
	if err != nil {
		return 0, err
	}
	return cpuOf(tree)
}

// PSS is the memory of it and its children, in octets; what several processes share is divided
// between them (proc(5), smaps_rollup).
func (p *Process) PSS() (int64, error) {
	tree, err := p.tree()
	if err != nil {
		return 0, err
	}
	return pssOf(tree)
}

// tree is the ids of it and its children.
func (p *Process) tree() ([]int, error) {
	if p.group != nil {
		return p.group.processes()
	}
	return descendants(p.command.Process.Pid)
}

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// patience bounds every wait for something that must happen. It is no
// expectation: a loaded machine may use most of it.
const patience = 60 * time.Second

// A process is a server that a test started and ends, by its process id.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed once it has ended
}

// startProcess starts a server whose output goes to stdout and stderr (files,
// appended to).
func startProcess(stdout, stderr string, argv ...string) (*process, error) {
	p := &process{name: argv[0], cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	// Nothing may outlast the tests, however they end.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	out, err := os.OpenFile(stdout, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	errs, err := os.OpenFile(stderr, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer errs.Close()
	p.cmd.Stdout, p.cmd.Stderr = out, errs
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	go func() {
		defer close(p.done)
		p.cmd.Wait() // its result is in ProcessState
		// Children that outlive their parent, as Dovecot's sessions do for ten
		// seconds, end with it. An error says that there are none.
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}()
	return p, nil
}

// accepts waits until the process listens on the address.
func (p *process) accepts(address string) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended instead of listening on %s: %s", p.name, address, p.cmd.ProcessState)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s doesn't listen on %s", p.name, address)
}

// signal sends the signal.
func (p *process) signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// wait waits for the end and returns the exit status, -1 where a signal ended it.
func (p *process) wait() (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(patience):
		p.cmd.Process.Kill()
		<-p.done
		return -1, fmt.Errorf("%s didn't end; killed", p.name)
	}
}

// terminate asks the process to end and waits until it has.
func (p *process) terminate() (int, error) {
	if err := p.signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return -1, err
	}
	return p.wait()
}

// lastPort starts at another place for each run, below the range from which
// the kernel takes ports for outgoing connections: a port that was free when we
// looked stays free until its server listens.
var lastPort atomic.Int32

// freeAddress returns an address on loopback that nobody listens on, each time another.
func freeAddress() (string, error) {
	lastPort.CompareAndSwap(0, int32(10000+os.Getpid()%200*100))
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", lastPort.Add(1))
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port on loopback")
}

// tail returns the last lines of a log for people to read.
func tail(file string, lines int) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.SplitAfter(string(text), "\n")
	return strings.Join(all[max(0, len(all)-1-lines):], "")
}

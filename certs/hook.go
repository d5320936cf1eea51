package certs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/libdns/libdns"
)

const (
	defaultHookLimit = 2 * time.Minute
	hookGrace        = 5 * time.Second // for those whom a hook left behind with its output
	maxHookOutput    = 4 << 10         // octets of it that an error tells
)

// hookPath is all that a hook gets of an environment: no variable of ours, which may hold a
// secret, reaches it.
const hookPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// A Hook has a program of the administrator's write the records of DNS-01 challenges. It is run
// without a shell as
//
//	program present _acme-challenge.mail.example.org. VALUE
//	program cleanup _acme-challenge.mail.example.org. VALUE
//
// and must end with 0 once the TXT record is written, or gone. It must leave other values of the
// same name alone; a VALUE may begin with a hyphen. It may be run several times at once.
// certmagic uses it as a libdns provider.
type Hook struct {
	Program string        // its absolute path
	Limit   time.Duration // how long each run may take; 0: two minutes
}

// NewHook returns a hook with the usual limit.
func NewHook(program string) *Hook { return &Hook{Program: program} }

// AppendRecords runs the program to present each record, and returns them.
func (h *Hook) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return h.each(ctx, "present", zone, records)
}

// DeleteRecords runs the program to clean up each record, and returns them.
func (h *Hook) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return h.each(ctx, "cleanup", zone, records)
}

func (h *Hook) each(ctx context.Context, do, zone string, records []libdns.Record) ([]libdns.Record, error) {
	list, err := challengeRecords(zone, records)
	if err != nil {
		return nil, err
	}
	for _, r := range list {
		if err := h.run(ctx, do, r); err != nil {
			return nil, fmt.Errorf("certs: the hook %s %s %s: %w", h.Program, do, r.name, err)
		}
	}
	return texts(records), nil
}

// run ends the program and all that it started, as far as they stay in its process group, when its
// time is over or ctx ends.
func (h *Hook) run(ctx context.Context, do string, r challengeRecord) error {
	limit := cmp.Or(h.Limit, defaultHookLimit)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var output beginning
	cmd := exec.CommandContext(limited, h.Program, do, r.name, r.value)
	cmd.Env = []string{hookPath}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = hookGrace
	err := cmd.Run()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // it ended with 0, and left somebody behind
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case limited.Err() != nil:
		return fmt.Errorf("it took longer than %v and was ended%s", limit, output.quote())
	}
	if _, isExit := errors.AsType[*exec.ExitError](err); isExit {
		return fmt.Errorf("%w%s", err, output.quote())
	}
	return err // it could not be started
}

// A beginning keeps the first octets of what is written to it.
type beginning struct {
	kept bytes.Buffer
	more bool
}

func (b *beginning) Write(p []byte) (int, error) {
	room := min(len(p), maxHookOutput-b.kept.Len())
	b.kept.Write(p[:room])
	b.more = b.more || room < len(p)
	return len(p), nil
}

// quote returns it for the end of an error, on one line.
func (b *beginning) quote() string {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(b.kept.String(), "?")), " ")
	switch {
	case text == "":
		return ", and said nothing"
	case b.more:
		return fmt.Sprintf(", and said %q and more", text)
	}
	return fmt.Sprintf(", and said %q", text)
}

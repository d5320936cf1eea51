package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"slices"

	"imapwarden/bench/internal/rig"
)

// A stand is what all peers are measured on: the upstream and the mail programs, in processes
// of their own.
type stand struct {
	settings
	folder  string // of the certificate; below it are the peers' folders
	program string // imapwarden's
	// The upstream's addresses: without TLS, with it, and where nginx asks for it.
	plain, secure, auth string

	upstream, mailPrograms *rig.Process
	load                   *rpc.Client
	started                int // proxies
}

// build starts all but the proxies.
func build(ctx context.Context, s settings, folder string) (_ *stand, err error) {
	t := &stand{settings: s, folder: folder}
	if err := rig.Certify(folder); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(s.peers, func(p peer) bool { return p.name == imapwarden.name }) {
		if t.program, err = rig.BuildWarden(ctx, folder); err != nil {
			return nil, err
		}
	}
	for _, address := range []*string{&t.plain, &t.secure, &t.auth} {
		if *address, err = rig.FreeAddress(); err != nil {
			return nil, err
		}
	}
	if err := t.startParts(); err != nil {
		return nil, errors.Join(err, t.stop())
	}
	return t, nil
}

func (t *stand) startParts() error {
	upstream, err := partCommand("upstream", t.plain, t.secure, t.auth, t.folder)
	if err != nil {
		return err
	}
	if t.upstream, err = rig.Start(upstream, filepath.Join(t.folder, "upstream.log")); err != nil {
		return err
	}
	for _, address := range []string{t.plain, t.secure, t.auth} {
		if err := t.upstream.Ready(func() error { return knock(address) }); err != nil {
			return err
		}
	}
	load, err := partCommand("load", t.folder)
	if err != nil {
		return err
	}
	in, err := load.StdinPipe()
	if err != nil {
		return err
	}
	reader, writer, err := os.Pipe() // StdoutPipe would be closed by Wait while we read
	if err != nil {
		return err
	}
	defer writer.Close()
	load.Stdout = writer
	if t.mailPrograms, err = rig.Start(load, filepath.Join(t.folder, "load.log")); err != nil {
		reader.Close()
		return err
	}
	t.load = rpc.NewClient(channel{pipes{reader, in}, in})
	return nil
}

// A channel closes its other direction, too.
type channel struct {
	pipes
	to interface{ Close() error }
}

func (c channel) Close() error { return errors.Join(c.to.Close(), c.pipes.Close()) }

func knock(address string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// stop ends what build has started.
func (t *stand) stop() error {
	var failed []error
	for _, p := range []*rig.Process{t.mailPrograms, t.upstream} {
		if p != nil {
			failed = append(failed, p.Stop())
		}
	}
	if t.load != nil {
		t.load.Close() // an error says that the process has ended
	}
	return errors.Join(failed...)
}

// tell has the mail programs do something.
func (t *stand) tell(ctx context.Context, what string, order, reply any) error {
	call := t.load.Go("Load."+what, order, reply, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if call.Error != nil {
			return fmt.Errorf("the mail programs: %s: %w", what, call.Error)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A turn is what one peer does with a process that has done nothing before, so that no stage
// inherits the memory of another.
type turn struct {
	*stand
	name    string
	proxy   *rig.Process
	address string
	figures figures
}

// with starts the peers, hands them over and ends them.
func (t *stand) with(ctx context.Context, peers []peer, into map[string]figures, stage func([]*turn) error) (err error) {
	var turns []*turn
	defer func() {
		if err == nil { // else the mail programs may not hear it
			var none struct{}
			err = t.tell(ctx, "Close", none, &none)
		}
		for _, turn := range turns {
			// How others end isn't ours to judge: stunnel 5.68 sometimes crashes on SIGTERM.
			if stopped := turn.proxy.Stop(); err == nil && turn.name == imapwarden.name {
				err = stopped
			}
		}
	}()
	for _, p := range peers {
		turn, err := t.start(p)
		if err != nil {
			return fmt.Errorf("starting %s: %w", p.name, err)
		}
		turn.figures = into[p.name]
		turns = append(turns, turn)
		if err := turn.proxy.Ready(func() error { return knock(turn.address) }); err != nil {
			return err
		}
	}
	return stage(turns)
}

func (t *stand) start(p peer) (*turn, error) {
	t.started++
	where := place{folder: filepath.Join(t.folder, fmt.Sprint(p.name, t.started))}
	if err := os.Mkdir(where.folder, 0o711); err != nil {
		return nil, err
	}
	var err error
	if where.listen, err = rig.FreeAddress(); err != nil {
		return nil, err
	}
	proxy, err := p.start(t, where)
	if err != nil {
		return nil, err
	}
	return &turn{stand: t, name: p.name, proxy: proxy, address: where.listen}, nil
}

func (t *turn) failed(err error) error {
	return fmt.Errorf("%s: %w\n%s", t.name, err, t.proxy.LastWords())
}

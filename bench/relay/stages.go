package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// What is measured, by its name in the table.
const (
	loginHybrid   = "CPU per login, X25519MLKEM768 offered (µs)"
	loginX25519   = "CPU per login, X25519 (µs)"
	loginResumed  = "CPU per login, TLS session resumed (µs)"
	down1         = "CPU to the client, 1 connection (s/GiB)"
	down8         = "CPU to the client, 8 connections (s/GiB)"
	up1           = "CPU from the client, 1 connection (s/GiB)"
	up8           = "CPU from the client, 8 connections (s/GiB)"
	memory        = "memory per idle session (KB)"
	memoryAfterUp = "the same after an APPEND of 64 KiB (KB)"
	memoryQuiet   = "the same after quiet time (KB)"
	idleCPU       = "CPU while all idle (ms/s)"
	noopCPU       = "CPU per NOOP beside them (µs)"
	noopAdded     = "added round trip of a NOOP (µs)"
)

// order is the table's.
var order = []string{
	loginHybrid, loginX25519, loginResumed, down1, down8, up1, up8,
	memory, memoryAfterUp, memoryQuiet, idleCPU, noopCPU, noopAdded,
}

// Shares of logins, in percent, told below the table.
const (
	shareHybrid  = "used X25519MLKEM768"
	shareResumed = "resumed"
)

// figures are one peer's of one run.
type figures map[string]float64

const (
	warmUp   = 40                     // logins before anything is measured
	settling = 100 * time.Millisecond // until what a proxy writes of logins is written
	// Logins and octets are measured in so many blocks a run, among which all peers take turns:
	// what else the machine does meets all of them.
	blocks = 8
)

// measureLogins measures peers that are all running.
func measureLogins(ctx context.Context, turns []*turn) error {
	kinds := []loginKind{
		{loginHybrid, shareHybrid, Logins{Hybrid: true}},
		{loginX25519, "", Logins{}},
		{loginResumed, shareResumed, Logins{Resume: true}},
	}
	for _, t := range turns {
		if err := t.warmUp(ctx); err != nil {
			return t.failed(err)
		}
		first := Logins{Address: t.address, Count: parallel, Resume: true} // these get the first tickets
		if err := t.tell(ctx, "Logins", first, &Handshakes{}); err != nil {
			return t.failed(err)
		}
	}
	return shuffle(turns, kinds, func(t *turn, k loginKind) error { return t.logIn(ctx, k) })
}

// A loginKind is one way to shake hands.
type loginKind struct {
	name, share string
	order       Logins
}

func (t *turn) logIn(ctx context.Context, k loginKind) error {
	k.order.Address, k.order.Count = t.address, t.logins/blocks
	var did Handshakes
	used, err := t.using(func() error {
		if err := t.tell(ctx, "Logins", k.order, &did); err != nil {
			return err
		}
		return wait(ctx, settling)
	})
	if err != nil {
		return err
	}
	each := float64(k.order.Count * blocks)
	t.figures[k.name] += micro(used) / each
	switch k.share {
	case shareHybrid:
		t.figures[k.share] += 100 * float64(did.Hybrid) / each
	case shareResumed:
		t.figures[k.share] += 100 * float64(did.Resumed) / each
	}
	return nil
}

// measureOctets measures peers that are all running.
func measureOctets(ctx context.Context, turns []*turn) error {
	ways := []way{{down1, "Down", 1}, {down8, "Down", 8}, {up1, "Up", 1}, {up8, "Up", 8}}
	return shuffle(turns, ways, func(t *turn, w way) error { return t.move(ctx, w) })
}

// A way is where octets go, and over how many connections.
type way struct {
	name, call  string
	connections int
}

func (t *turn) move(ctx context.Context, w way) error {
	var none struct{}
	if err := t.tell(ctx, "Open", Open{Address: t.address, Count: w.connections, Octets: []int64{1 << 20}}, &none); err != nil {
		return err
	}
	octets := t.octets / blocks
	used, err := t.using(func() error { return t.tell(ctx, w.call, octets/int64(w.connections), &none) })
	if err != nil {
		return err
	}
	t.figures[w.name] += used.Seconds() * (1 << 30) / float64(octets*blocks)
	return t.tell(ctx, "Close", none, &none)
}

// shuffle does everything of each turn, block by block, in random order.
func shuffle[T any](turns []*turn, things []T, do func(*turn, T) error) error {
	for range blocks {
		for _, i := range rand.Perm(len(turns) * len(things)) {
			t := turns[i/len(things)]
			if err := do(t, things[i%len(things)]); err != nil {
				return t.failed(err)
			}
		}
	}
	return nil
}

// measureSessions measures one peer. Memory is what was added since the warm-up.
func measureSessions(ctx context.Context, t *turn) error {
	if err := t.warmUp(ctx); err != nil {
		return err
	}
	before, err := t.proxy.PSS()
	if err != nil {
		return err
	}
	var none struct{}
	open := Open{Address: t.address, Count: t.sessions, Octets: []int64{30 << 10, 200 << 10}, Idle: true}
	if err := t.tell(ctx, "Open", open, &none); err != nil {
		return err
	}
	if err := t.weigh(ctx, memory, before, t.settle); err != nil {
		return err
	}
	used, err := t.using(func() error { return wait(ctx, t.idle) })
	if err != nil {
		return err
	}
	t.figures[idleCPU] = micro(used) / 1e3 / t.idle.Seconds()
	if err := t.measureNoop(ctx); err != nil {
		return err
	}
	if err := t.tell(ctx, "Append", int64(64<<10), &none); err != nil {
		return err
	}
	if err := t.weigh(ctx, memoryAfterUp, before, t.settle); err != nil {
		return err
	}
	if t.quiet > 0 {
		return t.weigh(ctx, memoryQuiet, before, t.quiet)
	}
	return nil
}

// weigh reads memory after a while.
func (t *turn) weigh(ctx context.Context, name string, before int64, after time.Duration) error {
	if err := wait(ctx, after); err != nil {
		return err
	}
	now, err := t.proxy.PSS()
	if err != nil {
		return err
	}
	t.figures[name] = float64(now-before) / 1e3 / float64(t.sessions)
	return nil
}

func (t *turn) measureNoop(ctx context.Context) error {
	var took RoundTrips
	order := Noops{Address: t.address, Direct: t.plain, Count: 100}
	if err := t.tell(ctx, "Noop", order, &took); err != nil {
		return err
	}
	// One login is in it, which the many round trips leave too small to see.
	order.Count = t.noops
	used, err := t.using(func() error { return t.tell(ctx, "Noop", order, &took) })
	if err != nil {
		return err
	}
	t.figures[noopCPU] = micro(used) / float64(t.noops)
	t.figures[noopAdded] = micro(took.Through - took.Direct)
	return nil
}

func (t *turn) warmUp(ctx context.Context) error {
	return t.tell(ctx, "Logins", Logins{Address: t.address, Count: warmUp}, &Handshakes{})
}

// using is the CPU time that the proxy needs for something.
func (t *turn) using(do func() error) (time.Duration, error) {
	before, err := t.proxy.CPU()
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := t.proxy.CPU()
	return after - before, err
}

func micro(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting: %w", ctx.Err())
	}
}

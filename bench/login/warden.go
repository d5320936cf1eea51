package main

import (
	"context"
	"crypto/tls"
	"net"
	"path/filepath"
	"time"

	"imapwarden/bench/internal/rig"
)

// password is every account's own.
const password = rig.Password

// A warden is the program that is measured, in a process of its own.
type warden struct {
	*rig.Process
	address string
	believe *tls.Config // what its clients go by
	started time.Time
}

// startUpstream also says how to end it.
func startUpstream() (address string, end func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	go rig.ServeMailboxes(l)
	return l.Addr().String(), l.Close, nil
}

// startWarden builds the program, configures it in the folder and starts it.
func startWarden(ctx context.Context, folder, upstream string) (*warden, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return nil, err
	}
	program, err := rig.BuildWarden(ctx, folder)
	if err != nil {
		return nil, err
	}
	if err := rig.Certify(folder); err != nil {
		return nil, err
	}
	w := &warden{}
	if w.believe, err = rig.Believe(folder); err != nil {
		return nil, err
	}
	if w.address, err = rig.FreeAddress(); err != nil {
		return nil, err
	}
	w.Process, err = rig.Warden{
		Program: program, Folder: folder, Listen: w.address, Upstream: upstream,
		StoreURL: "sqlite:" + filepath.Join(folder, storeName), KeyFile: filepath.Join(folder, keyName),
	}.Start()
	if err != nil {
		return nil, err
	}
	// It greets when its upkeep has begun.
	if err := w.Ready(w.greets); err != nil {
		w.Stop() // the error that counts is that one
		return nil, err
	}
	w.started = time.Now()
	return w, nil
}

func (w *warden) greets() error {
	c, err := w.dial()
	if err != nil {
		return err
	}
	return c.Close()
}

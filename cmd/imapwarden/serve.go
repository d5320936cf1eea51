package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
)

func serveCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Serve IMAP clients until SIGTERM; SIGHUP reads the certificates again",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, problems, err := o.load()
			if err != nil {
				return err
			}
			log := newLogger(o.stderr, config.Log)
			defer log.Sync()
			for _, p := range problems {
				log.Warn("configuration", zap.String("problem", p.String()))
			}
			w, err := newWarden(cmd.Context(), config, log)
			if err != nil {
				return err
			}
			return w.serve(cmd.Context())
		},
	}
}

// serve runs every part until ctx ends, then ends them in the order in which nothing is
// lost: clients first, then what their sessions still write to, the store last.
func (w *warden) serve(ctx context.Context) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	failed := make(chan error, len(w.listeners)+2)
	run := func(what string, do func() error) {
		parts.Go(func() {
			if err := do(); err != nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}

	run("the second factor's upkeep", func() error { return w.auth.Run(background) })
	run("certificates", func() error { w.certificates.Watch(background, 10*time.Second); return nil })
	run("reload", func() error { w.reloadOnHangup(background); return nil })
	if w.adminSocket != nil {
		run("admin socket", func() error { return w.admin.Serve(background, w.adminSocket) })
	}
	if w.metricsListener != nil {
		run("metrics", func() error { return w.serveMetrics(background) })
	}
	for _, l := range w.listeners {
		w.log.Info("listening", zap.Stringer("address", l.Addr()), zap.Bool("starttls", l.StartTLS))
		run("listener "+l.Addr().String(), func() error { return ignoreClosed(w.proxy.Serve(l)) })
	}

	var err error
	select {
	case <-ctx.Done():
		w.log.Info("shutting down: no new sessions; those that are logged in go on until the deadline",
			zap.Duration("deadline", w.config.Timeouts.Drain.D()))
	case err = <-failed:
		w.log.Error("a part failed, shutting down", zap.Error(err))
	}
	drain, cancel := context.WithTimeout(context.Background(), w.config.Timeouts.Drain.D())
	defer cancel()
	w.proxy.Shutdown(drain)
	stop()
	parts.Wait()
	return errors.Join(err, w.close())
}

// reloadOnHangup reads the certificate files again on SIGHUP. What is wrong with them is
// said in the log; the old ones stay.
func (w *warden) reloadOnHangup(ctx context.Context) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			w.reload()
		}
	}
}

func (w *warden) reload() {
	if err := w.certificates.Reload(); err != nil {
		w.log.Error("certificates not reloaded, the old ones stay", zap.Error(err))
		return
	}
	w.log.Info("certificates reloaded")
}

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

	"imapwarden/audit"
	"imapwarden/configs"
)

func serveCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Serve IMAP clients until SIGTERM; SIGHUP reads the certificates again",
		Args:  takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, problems, err := o.load()
			if err != nil {
				return err
			}
			log := newLogger(o.stderr, config.Log)
			defer log.Sync()
			defer zap.RedirectStdLog(log)() // certmagic has some lines for that one
			for _, p := range problems {
				log.Warn("configuration", zap.String("file", p.File), zap.Int("line", p.Line), zap.String("key", p.Key), zap.String("message", p.Message))
			}
			w, err := newWarden(cmd.Context(), config, log)
			if err != nil {
				log.Error("not started", zap.Error(err))
				return errShown
			}
			w.log.Info("starting", zap.String("version", readBuild().Version), zap.String("mode", config.MFA.Mode), zap.Strings("upstreams", upstreamNames(config)))
			if err := w.serve(cmd.Context(), w.reloadOnHangup); err != nil {
				log.Error("stopped", zap.Error(err))
				return errShown
			}
			log.Info("stopped")
			return nil
		},
	}
}

// upstreamNames says for each upstream what to call it, and where it is.
func upstreamNames(config *configs.Config) (names []string) {
	for _, u := range config.Upstreams {
		names = append(names, fmt.Sprintf("%s: %s, tls %s", u.Name, u.Address, u.TLS))
	}
	return names
}

// serve runs every part, and what else it is given, until ctx ends. It ends them in the
// order in which nothing is lost: clients first, then what their sessions still write to,
// the store last.
func (w *warden) serve(ctx context.Context, also ...func(context.Context) error) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var parts sync.WaitGroup
	failed := make(chan error, len(w.listeners)+len(also)+10) // one from each part
	run := func(what string, do func() error) {
		parts.Go(func() {
			if err := do(); err != nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}

	endExport := w.export(context.WithoutCancel(ctx))
	run("the second factor's upkeep", func() error { return w.auth.Run(background) })
	run("the audit's retention", func() error { w.purgeEvents(background); return nil })
	run("alerts", func() error { return w.alerts.run(background) })
	run("what limits remember", func() error { return w.proxy.Policy.Run(background, w.notRemembered) })
	run("the rules' files", func() error { w.proxy.Rules.Watch(background, w.readAgain); return nil })
	if w.common != nil {
		run("the list of common passwords", func() error { w.common.Watch(background, 0, w.readAgain); return nil })
	}
	run("TLS session tickets", func() error { w.renewTicketsHourly(background); return nil })
	if w.certificates != nil {
		run("certificates", func() error { w.certificates.Watch(background, 10*time.Second); return nil })
	}
	w.serveACME(background, run)
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
	for _, do := range also {
		run("besides", func() error { return do(background) })
	}

	var err error
	select {
	case <-ctx.Done():
		w.log.Info("shutting down: no new sessions; those that are logged in go on until the deadline",
			zap.Duration("deadline", w.config.Timeouts.Drain.D()))
	case err = <-failed:
		w.log.Error("a part failed, shutting down", zap.Error(err))
	}
	w.draining.Store(true)
	drain, cancel := context.WithTimeout(context.Background(), w.config.Timeouts.Drain.D())
	defer cancel()
	w.proxy.Shutdown(drain)
	stop()
	parts.Wait()
	close(failed)
	for late := range failed {
		err = errors.Join(err, late)
	}
	err = errors.Join(err, w.closeRecorder())
	endExport() // what the recorder has just written goes along
	return errors.Join(err, w.close())
}

// notRemembered says that the store doesn't take what limits remember. They go on without it.
func (w *warden) notRemembered(err error) {
	w.log.Error("bans or familiar networks not stored, trying again: a restart would forget them", zap.Error(err))
}

// readAgain says what became of a file that has changed.
func (w *warden) readAgain(path string, err error) {
	if err != nil {
		w.log.Error("a file that has changed can't be used, what was read of it before stays", zap.String("file", path), zap.Error(err))
		return
	}
	w.log.Info("a file that has changed is in use", zap.String("file", path))
}

// export keeps the audit's file up to date until it is told to end, with all that is stored by then.
func (w *warden) export(ctx context.Context) (end func()) {
	if w.exporter == nil {
		return func() {}
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := w.exporter.Run(ctx); err != nil {
			w.log.Error("audit events are not copied to the file any more", zap.String("file", w.exporter.Path), zap.Error(err))
		}
	}()
	return func() { stop(); <-ended }
}

// purgeEvents keeps the audit within its bounds: now, and then every hour.
func (w *warden) purgeEvents(ctx context.Context) {
	hourly := time.NewTicker(time.Hour)
	defer hourly.Stop()
	for {
		w.purgeOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-hourly.C:
		}
	}
}

func (w *warden) purgeOnce(ctx context.Context) {
	before, err := w.purgeBefore(ctx)
	removed, failure := w.store.PurgeEvents(ctx, before, w.config.Audit.Most)
	if removed > 0 {
		w.log.Info("old audit events removed", zap.Int64("removed", removed))
	}
	if err := errors.Join(err, failure); err != nil && ctx.Err() == nil {
		w.log.Error("old audit events not removed, trying again in an hour", zap.Error(err))
	}
}

// purgeBefore returns how old events have to be to go by their age. What isn't in the file
// yet stays until it is there, and then goes the next time; audit.most bounds it all the same.
// With an error, nothing goes by its age.
func (w *warden) purgeBefore(ctx context.Context) (time.Time, error) {
	before := time.Now().Add(-w.config.Audit.Keep.D())
	if w.exporter == nil {
		return before, nil
	}
	oldest, ok, err := audit.Unexported(ctx, w.store)
	if err != nil {
		return time.Time{}, err
	}
	if !ok || !oldest.Time.Before(before) {
		return before, nil
	}
	w.log.Warn("audit events are older than audit.keep and not in the audit file yet: they stay until they are, or audit.most removes them",
		zap.String("file", w.exporter.Path), zap.Int64("from", oldest.ID), zap.Time("of", oldest.Time))
	return oldest.Time, nil
}

// reloadOnHangup reads the certificate files again on SIGHUP. What is wrong with them is
// said in the log; the old ones stay.
func (w *warden) reloadOnHangup(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			w.reload()
		}
	}
}

// reload says what it does; that there were new ones, certs says.
func (w *warden) reload() {
	if w.certificates == nil {
		w.log.Info("no certificate files are named that could be read again; other settings wait for a restart")
		return
	}
	w.log.Info("reading the certificates again; other settings wait for a restart")
	if err := w.certificates.Reload(); err != nil {
		w.log.Error("certificates not reloaded, the old ones stay", zap.Error(err))
	}
}

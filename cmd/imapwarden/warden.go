package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"imapwarden/admin"
	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/certs"
	"imapwarden/configs"
	"imapwarden/metrics"
	"imapwarden/policy"
	"imapwarden/proxy"
	"imapwarden/store"
)

// A warden is the whole program: every part, built from one configuration, with its
// sockets open and nothing running yet. Tests and the demo build the same one.
type warden struct {
	config       *configs.Config
	log          *zap.Logger
	store        *store.Store
	keys         *auth.Keys
	recorder     *audit.Recorder
	exporter     *audit.Exporter // nil: off
	alerts       *alerts
	common       *policy.CommonPasswords // nil: there is no list
	auth         *auth.Authenticator
	certificates *certs.Files // nil: none are named
	acme         *certs.ACME  // nil: no CA is asked
	proxy        *proxy.Server
	admin        *admin.Server
	metrics      *metrics.Metrics

	listeners         []proxy.Listener
	adminSocket       net.Listener // nil: off
	metricsListener   net.Listener // nil: off
	challengeListener net.Listener // nil: a CA's questions don't come here, or at the listeners

	draining atomic.Bool // no new sessions
}

// newWarden builds all of it, or says what stands in the way and leaves nothing open.
func newWarden(ctx context.Context, config *configs.Config, log *zap.Logger) (_ *warden, err error) {
	w := &warden{config: config, log: log, metrics: metrics.New()}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.store, err = store.Open(ctx, config.Store.URL); err != nil {
		return nil, err
	}
	if w.keys, err = auth.OpenKeys(ctx, config.Store.KeyFile, w.store); err != nil {
		return nil, err
	}
	if err := writable(ctx, w.store); err != nil {
		return nil, err
	}
	if w.alerts, err = openAlerts(ctx, config, w.store, w.metrics, log); err != nil {
		return nil, err
	}
	w.recorder = audit.NewRecorder(w.alerts.sink(w.store), log)
	w.alerts.recorder = w.recorder
	w.metrics.WatchAudit(func() float64 { return float64(w.recorder.Lost()) }, func() float64 { return float64(w.recorder.Waiting()) })
	if path := config.Audit.File; path != "" {
		w.exporter = &audit.Exporter{Path: path, Source: w.store, Log: log}
		w.metrics.WatchAuditFile(w.exporter.Passed)
	}
	w.auth = authenticator(config.MFA, w.store, w.keys, log)
	w.auth.Ended = w.revoke
	if err := w.openCertificates(ctx); err != nil {
		return nil, err
	}
	w.metrics.WatchCertificates(shownCertificates{w.certificates, w.acme}.expiries)
	gate, err := w.gate(ctx)
	if err != nil {
		return nil, err
	}
	route, err := routes(config)
	if err != nil {
		return nil, err
	}
	rules, err := rules(config, log)
	if err != nil {
		return nil, err
	}
	w.proxy = &proxy.Server{
		Hostname:     config.Hostname,
		TLS:          certs.ServerConfig(certs.Chooser{Files: w.certificates, ACME: w.acme}, tlsVersions[config.TLS.MinVersion]),
		Names:        names(config),
		Auth:         w.auth,
		Mode:         auth.Mode(config.MFA.Mode),
		Rules:        rules,
		Help:         config.Portal.URL,
		Policy:       gate,
		Webmail:      config.Limits.Webmail,
		Route:        route,
		Audit:        w.recorder,
		Metrics:      w.metrics,
		Log:          log,
		Timeouts:     timeouts(config.Timeouts),
		RefusalDelay: config.MFA.RefusalDelay.D(),
		Refusals:     config.Limits.Refusals,
	}
	if err := w.renewTickets(ctx); err != nil {
		return nil, err
	}
	w.admin = &admin.Server{
		Directory:    directory(config, w.store, w.keys),
		Audit:        w.recorder,
		Events:       w.store,
		Sessions:     sessions{w.proxy},
		Bans:         gate,
		Certificates: shownCertificates{w.certificates, w.acme},
		Explain:      w.explain,
		Rotate:       func(ctx context.Context) (auth.Rotation, error) { return rotateKeys(ctx, w.keys, w.store) },
		Log:          log,
	}
	w.admin.Directory.Ended = w.revoke
	return w, w.listen()
}

// gate is what decides about limits, with what it remembered before the last restart.
func (w *warden) gate(ctx context.Context) (*policy.Gate, error) {
	g := &policy.Gate{Limits: limits(w.config.Limits), Alert: w.alerts.raise}
	if file := w.config.Passwords.File; file != "" {
		var err error
		if w.common, err = policy.OpenCommon(file); err != nil {
			return nil, fmt.Errorf("passwords.file: %w", unprefixed(err))
		}
		g.Common, g.CommonAction = w.common, policy.CommonAction(w.config.Passwords.Action)
	}
	g.Limits.Tarpit = inProportion(g.Limits.Tarpit, w.config.MFA.RefusalDelay.D())
	return g, g.Load(ctx, w.store)
}

// revoke ends the sessions that live under what was taken away.
func (w *warden) revoke(r auth.Revocation) {
	if n := w.proxy.Revoke(r); n > 0 {
		w.log.Info("sessions ended", zap.String("account", r.Account), zap.Int("sessions", n))
	}
}

// keepAlive finds out about peers that are gone. Mail programs idle for half an hour, and Go's
// default, a probe every 15 s, would keep every phone awake.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Minute, Interval: time.Minute, Count: 5}

// listen opens every socket, so that a port that is taken is known before anything runs.
func (w *warden) listen() error {
	clients := net.ListenConfig{KeepAliveConfig: keepAlive}
	for _, l := range w.config.Listeners {
		listener, err := clients.Listen(context.Background(), "tcp", l.Address)
		if err != nil {
			return listenError("listener "+l.Address, err)
		}
		w.listeners = append(w.listeners, proxy.Listener{Listener: listener, StartTLS: l.TLS == "starttls", TrustedProxies: l.TrustedProxies})
	}
	var err error
	if path := w.config.Admin.Socket; path != "" {
		if w.adminSocket, err = admin.Listen(path); err != nil {
			return err
		}
	}
	if address := w.config.Metrics.Address; address != "" {
		if w.metricsListener, err = net.Listen("tcp", address); err != nil {
			return listenError("metrics "+address, err)
		}
	}
	if address := w.config.TLS.ACME.ChallengeAddress(); w.acme != nil && address != "" {
		if w.challengeListener, err = net.Listen("tcp", address); err != nil {
			return listenError("tls.acme.address "+address, err)
		}
	}
	return nil
}

// listenError says what can be done, and the address once.
func listenError(what string, err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	number, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return fmt.Errorf("%s: %w", what, err)
	}
	advice := ""
	switch number {
	case syscall.EADDRINUSE:
		advice = ": another program listens there; ss -ltnp names it"
	case syscall.EACCES:
		advice = ": ports below 1024 need CAP_NET_BIND_SERVICE, as imapwarden.service gives it"
	case syscall.EADDRNOTAVAIL:
		advice = ": this machine doesn't have that address, or not yet; 0.0.0.0 stands for all that it has"
	}
	return fmt.Errorf("%s: %w%s", what, number, advice)
}

// close ends what newWarden began, as far as it came.
func (w *warden) close() error {
	for _, l := range w.listeners {
		l.Close()
	}
	for _, l := range []net.Listener{w.adminSocket, w.metricsListener, w.challengeListener} {
		if l != nil {
			l.Close()
		}
	}
	err := w.closeRecorder()
	if w.store != nil {
		err = errors.Join(err, w.store.Close())
	}
	return err
}

// closeRecorder has the audit write what it still holds. It may be called again.
func (w *warden) closeRecorder() error {
	if w.recorder == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return w.recorder.Close(ctx)
}

// writable writes something into the store. A disk that is full or mounted anew
// read-only still answers questions, and yet nobody can sign in with a code.
func writable(ctx context.Context, records auth.Marks) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := records.SetMark(ctx, "writable", time.Now().UTC().Format(time.RFC3339)); err != nil {
		return fmt.Errorf("trying to write to the store: %w", err)
	}
	return nil
}

// readiness is /readyz: whether new sessions are taken, and can be served. Whoever asks
// more often than once a second gets the last answer again: each new one is a write.
func (w *warden) readiness(ctx context.Context) func() error {
	var mu sync.Mutex
	var at time.Time
	var last error
	return func() error {
		if w.draining.Load() {
			return errors.New("shutting down")
		}
		mu.Lock()
		defer mu.Unlock()
		if time.Since(at) >= time.Second {
			last = writable(ctx, w.store)
			at = time.Now()
		}
		return last
	}
}

func (w *warden) serveMetrics(ctx context.Context) error {
	server := &http.Server{
		Handler:           w.metrics.Handler(w.readiness(ctx)),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		ErrorLog:          zap.NewStdLog(w.log),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(w.metricsListener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, proxy.ErrServerClosed) {
		return nil
	}
	return err
}

package certs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// A domain is one of those that an ACME has a certificate for, and how that goes.
type domain struct {
	acme   *ACME
	name   string
	config *certmagic.Config
	heard  *heard
	busy   chan struct{} // holds a token while somebody looks at the certificate

	mu       sync.Mutex
	failures int       // in a row
	trouble  error     // of the last try; nil: none
	next     time.Time // when it is tried again; zero where there is no trouble
	failed   error     // what certmagic says of the try that goes on
	giveUp   func()    // ends that try
}

func newDomain(a *ACME, name string) *domain {
	d := &domain{acme: a, name: name, heard: new(heard), busy: make(chan struct{}, 1)}
	d.config = a.newConfig(d.heard.logger(a.Log))
	d.config.OnEvent = d.event
	return d
}

// event hears of failures from certmagic. It replaces a revoked certificate in its patient way,
// which would wait for days within one call: its first failure is to end that.
func (d *domain) event(_ context.Context, event string, data map[string]any) error {
	err, ok := data["error"].(error)
	if !ok || event != "cert_failed" {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed = err
	if d.giveUp != nil {
		d.giveUp()
	}
	return nil
}

// keep looks at the certificate again and again until ctx ends.
func (d *domain) keep(ctx context.Context) {
	for {
		wait := cmp.Or(d.acme.Check, defaultCheck)
		if err := d.manage(ctx, false); err != nil {
			wait = time.Until(d.nextTry())
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// manage sees to it that there is a certificate, and renews it where it is time, or in any
// case where it is forced. What comes of it is logged, and kept for the list.
func (d *domain) manage(ctx context.Context, force bool) error {
	select {
	case d.busy <- struct{}{}:
		defer func() { <-d.busy }()
	case <-ctx.Done():
		return ctx.Err()
	}
	err := d.try(ctx, force)
	if ctx.Err() != nil { // we were told to stop; nothing is wrong
		return ctx.Err()
	}
	if err != nil {
		d.fail(err, d.heard.comeBack())
		d.tell()
		return err
	}
	d.succeed()
	return nil
}

// try asks the authority where there is need to, and serves what is stored then.
func (d *domain) try(ctx context.Context, force bool) error {
	// An order takes as long as its records need to be seen; who waits for another process's
	// gives up some day, too.
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute+2*d.acme.Propagation)
	defer cancel()
	d.heard.forget()
	d.begin(cancel)
	defer d.acme.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: d.name}})

	err := d.ask(ctx, force)
	if failed := d.failure(); failed != nil {
		err = failed
	}
	if err != nil {
		return err
	}
	return d.use(context.WithoutCancel(ctx))
}

func (d *domain) ask(ctx context.Context, force bool) error {
	if force && d.acme.has(ctx, d.name) {
		return d.config.RenewCertSync(ctx, d.name, true)
	}
	return d.config.ManageSync(ctx, []string{d.name})
}

// use serves the stored certificate, with the authority's word that it isn't revoked
// (OCSP, RFC 6960) where it gives one.
func (d *domain) use(ctx context.Context) error {
	stored, err := d.acme.stored(ctx, d.name)
	if err != nil {
		return err
	}
	if cached, err := d.config.CacheManagedCertificate(ctx, d.name); err == nil {
		stored.OCSPStaple = cached.OCSPStaple
	}
	if d.acme.serve(d.name, stored) {
		leaf := stored.Leaf
		d.acme.Log.Info("a certificate of the CA is in use", zap.String("name", d.name), zap.String("issuer", issuerOf(leaf)),
			zap.Time("expires", leaf.NotAfter), zap.Time("renewal", stored.renewal))
	}
	return nil
}

func (d *domain) succeed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.trouble != nil {
		d.acme.Log.Info("the CA can be used again", zap.String("name", d.name), zap.Int("failures", d.failures))
	}
	d.failures, d.trouble, d.next = 0, nil, time.Time{}
}

// fail notes what went wrong. The next try waits twice as long as the last one did, and
// as long as the authority asks for, where it says so.
func (d *domain) fail(err error, comeBack time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait := cmp.Or(d.acme.Retry, defaultRetry)
	for range d.failures {
		wait = min(2*wait, max(longestRetry, d.acme.Retry))
	}
	d.failures++
	d.trouble = explainACME(err, d.name, d.acme.challenge())
	d.next = time.Now().Add(wait)
	if comeBack.After(d.next) {
		d.next = comeBack
	}
}

// tell logs what is the matter, and when it is tried again.
func (d *domain) tell() {
	d.mu.Lock()
	defer d.mu.Unlock()
	fields := []zap.Field{zap.String("name", d.name), zap.Time("again", d.next), zap.String("ca", d.acme.directory()), zap.Error(d.trouble)}
	served := (*d.acme.served.Load())[d.name]
	switch now := time.Now(); {
	case served == nil:
		d.acme.Log.Error("no certificate yet, clients of this name are turned away; trying again", fields...)
	case now.After(served.Leaf.NotAfter):
		d.acme.Log.Error("the certificate has expired and isn't renewed; trying again", append(fields, zap.Time("expired", served.Leaf.NotAfter))...)
	default:
		d.acme.Log.Warn("the certificate isn't renewed yet, the old one stays; trying again", append(fields, zap.Time("expires", served.Leaf.NotAfter))...)
	}
}

func (d *domain) nextTry() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.next
}

func (d *domain) begin(giveUp func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed, d.giveUp = nil, giveUp
}

func (d *domain) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

// ErrNoDomain is what Renew returns for a name that isn't one of the Domains.
var ErrNoDomain = errors.New("certs: no certificate of a CA is configured for this name")

// Renew gets a new certificate for one of the Domains at once, whether it is time or not, and
// returns once it is in use, or what stood in the way. It doesn't wait for the time that the
// authority may have asked for.
func (a *ACME) Renew(ctx context.Context, name string) error {
	if err := a.Open(ctx); err != nil && a.domains == nil {
		return err
	}
	for _, d := range a.domains {
		if d.name != name {
			continue
		}
		if err := d.manage(ctx, true); err != nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.trouble != nil {
				err = d.trouble
			}
			return fmt.Errorf("certs: renewing the certificate for %s: %w", name, err)
		}
		return nil
	}
	return ErrNoDomain
}

// has says whether anything of a certificate is stored.
func (a *ACME) has(ctx context.Context, name string) bool {
	_, err := a.stored(ctx, name)
	return !errors.Is(err, fs.ErrNotExist)
}

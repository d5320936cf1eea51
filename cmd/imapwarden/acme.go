package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	acmez "github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"imapwarden/certs"
	"imapwarden/configs"
)

// acme is what gets certificates from a CA; nil where none is configured.
func acme(config *configs.Config, storage *certs.Storage, log *zap.Logger) (*certs.ACME, error) {
	c := config.TLS.ACME
	if len(c.Domains) == 0 {
		return nil, nil
	}
	a := &certs.ACME{
		Directory:   c.Directory,
		Email:       c.Email,
		Domains:     c.Domains,
		Challenge:   certs.Challenge(c.Challenge),
		Address:     challengeAddress(config),
		Resolver:    c.DNS.Server,
		Propagation: c.Propagation.D(),
		Storage:     storage,
		Log:         log,
	}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("tls.acme.ca: %w", err)
		}
		a.Roots = x509.NewCertPool()
		if !a.Roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls.acme.ca: no PEM certificate in %s", c.CA)
		}
	}
	if c.EAB.KeyID != "" {
		key, err := c.EAB.Key()
		if err != nil {
			return nil, fmt.Errorf("tls.acme.eab.key_file: %s: %w", c.EAB.KeyFile, err)
		}
		a.Binding = &acmez.EAB{KeyID: c.EAB.KeyID, MACKey: key}
	}
	return a, dnsProvider(a, c)
}

// dnsProvider gives the DNS-01 challenge who writes its records.
func dnsProvider(a *certs.ACME, c configs.ACME) error {
	switch {
	case c.Challenge != "dns-01":
		return nil
	case c.Hook != "":
		a.DNS = certs.NewHook(c.Hook)
		return nil
	}
	secret, err := c.DNS.Key()
	if err != nil {
		return fmt.Errorf("tls.acme.dns.key_file: %s: %w", c.DNS.KeyFile, err)
	}
	provider, err := certs.NewRFC2136(c.DNS.Server, c.DNS.Zone, c.DNS.KeyName, c.DNS.Algorithm, secret)
	if err != nil {
		return fmt.Errorf("tls.acme.dns: %w", err)
	}
	a.DNS = provider
	return nil
}

// challengeAddress is where the challenge is answered: at its own address, or where the first listener
// with TLS alone is, at port 443 if one is there.
func challengeAddress(config *configs.Config) string {
	address := config.TLS.ACME.ChallengeAddress()
	if address != "" || config.TLS.ACME.Challenge == "dns-01" {
		return address
	}
	for _, l := range config.Listeners {
		_, port, _ := net.SplitHostPort(l.Address)
		if l.TLS == "implicit" && (address == "" || port == "443") {
			address = l.Address
		}
	}
	return address
}

// serveACME gets and renews certificates, and answers the CA where nobody else listens for it.
func (w *warden) serveACME(background context.Context, run func(what string, do func() error)) {
	if w.acme == nil {
		return
	}
	run("certificates of the CA", func() error { return w.acme.Run(background) })
	if l := w.challengeListener; l != nil {
		w.log.Info("listening for the CA's questions", zap.Stringer("address", l.Addr()), zap.String("challenge", w.config.TLS.ACME.Challenge))
		run("challenges at "+l.Addr().String(), func() error { return w.acme.Serve(background, l) })
	}
}

// openCertificates reads those in files, which must be good, and those that a CA gave, which may be
// missing still: the server starts without the CA.
func (w *warden) openCertificates(ctx context.Context) (err error) {
	if len(w.config.TLS.Certificates) > 0 || len(w.config.TLS.ACME.Domains) == 0 {
		if w.certificates, err = certificates(w.config.TLS, w.log); err != nil {
			return err
		}
	}
	if w.acme, err = acme(w.config, certs.NewStorage(w.store, fileKeys{w.keys}, time.Now), w.log); err != nil || w.acme == nil {
		return err
	}
	if err := w.acme.Open(ctx); err != nil {
		w.log.Error("a stored certificate can't be used", zap.Error(err))
	}
	return nil
}

package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// stored returns what the storage has for the domain; the error wraps fs.ErrNotExist where
// that is nothing.
func (a *ACME) stored(ctx context.Context, name string) (*servedCertificate, error) {
	issuer := (&certmagic.ACMEIssuer{CA: a.directory()}).IssuerKey()
	chain, err := a.Storage.Load(ctx, certmagic.StorageKeys.SiteCert(issuer, name))
	if err != nil {
		return nil, fmt.Errorf("certs: reading the stored certificate for %s: %w", name, err)
	}
	key, err := a.Storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(issuer, name))
	if err != nil {
		return nil, fmt.Errorf("certs: reading the stored key for %s: %w", name, err)
	}
	c, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("certs: the stored certificate for %s can't be used: %w", name, err)
	}
	renewal := usualRenewal(c.Leaf)
	// Without its record, a certificate is as good; only the authority's wish isn't known.
	if record, err := a.Storage.Load(ctx, certmagic.StorageKeys.SiteMeta(issuer, name)); err == nil {
		if wished := wishedRenewal(record); !wished.IsZero() {
			renewal = wished
		}
	}
	return &servedCertificate{Certificate: &c, renewal: renewal}, nil
}

// usualRenewal is when a third of its life is left.
func usualRenewal(leaf *x509.Certificate) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotAfter.Add(-time.Duration(float64(life) * certmagic.DefaultRenewalWindowRatio))
}

// wishedRenewal is a moment in the time that the authority suggests (RFC 9773, section 4.2), by
// the record that certmagic keeps beside a certificate; zero where it suggested none.
func wishedRenewal(record []byte) time.Time {
	var resource certmagic.CertificateResource
	var issued acme.Certificate
	if json.Unmarshal(record, &resource) != nil || json.Unmarshal(resource.IssuerData, &issued) != nil || issued.RenewalInfo == nil {
		return time.Time{}
	}
	return issued.RenewalInfo.SelectedTime
}

// List says how it is about the certificate of each domain, in their order: by the storage, and
// where Run goes on, with its trouble. It may be called without Open.
func (a *ACME) List(ctx context.Context) []Status {
	list := make([]Status, 0, len(a.Domains))
	for _, name := range a.Domains {
		s := Status{Source: "acme"}
		stored, err := a.stored(ctx, name)
		switch {
		case err == nil:
			s = statusOf(stored.Leaf)
			s.Source, s.Renewal = "acme", stored.renewal
			s.Trouble = ageTrouble(stored.Leaf, time.Now())
		case errors.Is(err, fs.ErrNotExist):
			s.Trouble = "none from the CA yet"
		default:
			s.Trouble = err.Error()
		}
		s.Names = []string{name}
		for _, d := range a.domains {
			if next, trouble := d.state(); d.name == name && trouble != nil {
				s.Trouble, s.NextTry = trouble.Error(), next
			}
		}
		list = append(list, s)
	}
	return list
}

func (d *domain) state() (next time.Time, trouble error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.next, d.trouble
}

// Expires returns when the certificate that is served for each domain ends; those that
// have none aren't in it.
func (a *ACME) Expires() map[string]time.Time {
	all := make(map[string]time.Time)
	if served := a.served.Load(); served != nil {
		for name, c := range *served {
			all[name] = c.Leaf.NotAfter
		}
	}
	return all
}

// issuerOf names who signed the certificate.
func issuerOf(leaf *x509.Certificate) string {
	return cmp.Or(leaf.Issuer.CommonName, leaf.Issuer.String())
}

package certs

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"time"
)

// A Status says how it is about one certificate.
type Status struct {
	Names   []string  // that it is for
	Source  string    // "acme", or the path of its file
	Issuer  string    // who signed it; "" where there is none yet
	Key     string    // the kind of its key, as in "ECDSA P-256"
	Expires time.Time // zero where there is none yet
	Renewal time.Time // when we renew it; zero where that is somebody else's business
	Trouble string    // what is the matter; "" is nothing
	NextTry time.Time // when we try again to end the trouble; zero: not by ourselves
}

func statusOf(leaf *x509.Certificate) Status {
	return Status{Names: leaf.DNSNames, Issuer: issuerOf(leaf), Key: kindOfKey(leaf.PublicKey), Expires: leaf.NotAfter}
}

func kindOfKey(public any) string {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("%T", public)
}

// ageTrouble says what is wrong with the times of a certificate.
func ageTrouble(leaf *x509.Certificate, now time.Time) string {
	switch {
	case now.After(leaf.NotAfter):
		return "has expired: mail programs refuse it"
	case now.Before(leaf.NotBefore):
		return "is not valid before " + day(leaf.NotBefore) + ": is this machine's clock right?"
	}
	return ""
}

// List says how it is about the certificates that are served now, in the order of the configuration.
func (f *Files) List() []Status {
	s := f.current.Load()
	list := make([]Status, 0, len(s.certificates))
	for i, c := range s.certificates {
		status := statusOf(c.Leaf)
		status.Source = s.origins[i].cert
		status.Trouble = ageTrouble(c.Leaf, time.Now())
		list = append(list, status)
	}
	return list
}

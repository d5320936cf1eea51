package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"
)

// What mail programs may refuse is told, and nothing of a good certificate.
func TestWeaknesses(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	good := func() *x509.Certificate {
		return &x509.Certificate{
			NotBefore: now.Add(-30 * 24 * time.Hour), NotAfter: now.Add(60 * 24 * time.Hour),
			PublicKey: &ecdsa.PublicKey{Curve: elliptic.P256()}, SignatureAlgorithm: x509.SHA256WithRSA,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
	}
	rsaKey := func(bits uint) *rsa.PublicKey {
		return &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), bits-1), E: 65537}
	}
	for what, test := range map[string]struct {
		change func(*x509.Certificate)
		want   string // "": nothing
	}{
		"good":                       {func(*x509.Certificate) {}, ""},
		"RSA of 2048":                {func(c *x509.Certificate) { c.PublicKey = rsaKey(2048) }, ""},
		"RSA of 1024":                {func(c *x509.Certificate) { c.PublicKey = rsaKey(1024) }, "1024 bits"},
		"P-224":                      {func(c *x509.Certificate) { c.PublicKey = &ecdsa.PublicKey{Curve: elliptic.P224()} }, "P-224"},
		"SHA-1":                      {func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }, "SHA1"},
		"for clients":                {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, "isn't for servers"},
		"of no use":                  {func(c *x509.Certificate) { c.ExtKeyUsage = nil }, ""},
		"ends soon":                  {func(c *x509.Certificate) { c.NotAfter = now.Add(10 * 24 * time.Hour) }, "expires on 2026-12-03"},
		"lives six days":             {func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now, now.Add(6*24*time.Hour) }, ""},
		"has ended (told by others)": {func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) }, ""},
	} {
		c := good()
		test.change(c)
		got := strings.Join(weaknesses(c, "mail.pem", now), "\n")
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", what, got, test.want)
		}
	}
}

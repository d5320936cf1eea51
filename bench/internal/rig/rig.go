// Package rig is what the benchmarks around the real program have in common: a certificate,
// an upstream that costs little, and processes whose CPU time and memory are read from
// outside, with all their children. It knows nothing of what is measured, and reports
// nothing.
//
// A Process is safe for concurrent use; all else is used by one goroutine.
package rig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	// Hostname is the one in the certificate.
	Hostname = "bench.example.org"
	// Patience is for all that must happen.
	Patience = 30 * time.Second

	// The files that Certify writes.
	CertName = "cert.pem"
	KeyName  = "key.pem"
)

// Certify makes a certificate of the kind that most servers have (ECDSA, P-256) in the
// folder: CertName and KeyName.
func Certify(folder string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: Hostname},
		DNSNames:     []string{Hostname},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		CertName: {Type: "CERTIFICATE", Bytes: der},
		KeyName:  {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Believe is what clients of the certificate in the folder go by: TLS 1.3, and X25519 alone,
// without ML-KEM, which not all mail programs and proxies offer.
func Believe(folder string) (*tls.Config, error) {
	cert, err := os.ReadFile(filepath.Join(folder, CertName))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return &tls.Config{
		RootCAs: pool, ServerName: Hostname, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519},
	}, nil
}

// FreeAddress is one of loopback on which nobody listens.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

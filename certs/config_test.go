package certs

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// handshake returns what the client sees of a handshake on loopback, and the server's
// error where it has one, or else the client's. (On net.Pipe, which holds no
// bytes, a client that refuses a certificate and its server wait for each other.)
func handshake(server, client *tls.Config) (tls.ConnectionState, error) {
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer l.Close()
	serverErr := make(chan error, 1)
	go func() {
		s, err := l.Accept()
		if err == nil {
			defer s.Close()
			_, err = s.Write([]byte("* OK\r\n")) // after the handshake
		}
		serverErr <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer raw.Close()
	c := tls.Client(raw, client)
	n, err := c.Read(make([]byte, 10)) // takes session tickets and late alerts along
	if n > 0 {
		err = nil // io.EOF, where the server's end came with its greeting
	}
	raw.Close()
	return c.ConnectionState(), cmp.Or(<-serverErr, err)
}

// rsaPair writes an RSA certificate for host.
func rsaPair(t *testing.T, dir, host string) Pair {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	p := Pair{Cert: filepath.Join(dir, "rsa.pem"), Key: filepath.Join(dir, "rsa.key")}
	write(t, p.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	write(t, p.Key, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	return p
}

func TestServerConfig(t *testing.T) {
	dir := t.TempDir()
	f, _ := load(t, pairIn(t, dir, "a.test"), rsaPair(t, dir, "a.test"))
	tests := []struct {
		name       string
		minVersion uint16
		client     *tls.Config
		protocol   string
		err        string // "" is success
	}{
		{name: "ALPN imap", client: &tls.Config{NextProtos: []string{"imap"}}, protocol: "imap"},
		{name: "ALPN imap among others", client: &tls.Config{NextProtos: []string{"h2", "imap"}}, protocol: "imap"},
		{name: "no ALPN", client: &tls.Config{}},
		{name: "ALPN of others only", client: &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, err: "application protocol"},
		{name: "ALPN smtp", client: &tls.Config{NextProtos: []string{"smtp"}}, err: "application protocol"},
		{name: "TLS 1.2", client: &tls.Config{MaxVersion: tls.VersionTLS12}},
		{name: "TLS 1.1", client: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, err: "unsupported versions"},
		{
			name: "TLS 1.1, also when asked for", minVersion: tls.VersionTLS10,
			client: &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, err: "unsupported versions",
		},
		{name: "TLS 1.2 where 1.3 is the least", minVersion: tls.VersionTLS13, client: &tls.Config{MaxVersion: tls.VersionTLS12}, err: "unsupported versions"},
		{name: "AES-GCM", client: only(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)},
		{name: "ChaCha20 with RSA", client: only(tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256)},
		{name: "CBC", client: only(tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA), err: "no cipher suite"},
		{name: "no forward secrecy", client: only(tls.TLS_RSA_WITH_AES_128_GCM_SHA256), err: "no cipher suite"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client := tt.client.Clone()
			client.ServerName, client.InsecureSkipVerify = "a.test", true
			state, err := handshake(ServerConfig(Chooser{Files: f}, tt.minVersion), client)
			if tt.err == "" {
				if err != nil || state.NegotiatedProtocol != tt.protocol {
					t.Errorf("protocol %q, error %v; want %q", state.NegotiatedProtocol, err, tt.protocol)
				}
			} else if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

// only is a client that speaks TLS 1.2 with these suites.
func only(suites ...uint16) *tls.Config {
	return &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: suites}
}

func TestCipherSuitesAreSafe(t *testing.T) {
	f, _ := load(t, pairIn(t, t.TempDir(), "a.test"))
	for _, id := range ServerConfig(Chooser{Files: f}, 0).CipherSuites {
		name := tls.CipherSuiteName(id)
		if !strings.HasPrefix(name, "TLS_ECDHE_") || !(strings.Contains(name, "GCM") || strings.Contains(name, "POLY1305")) {
			t.Errorf("%s is on", name)
		}
	}
}

func TestPostQuantumAndTickets(t *testing.T) {
	f, _ := load(t, pairIn(t, t.TempDir(), "a.test"))
	server := ServerConfig(Chooser{Files: f}, 0)
	client := &tls.Config{ServerName: "a.test", InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	first, err := handshake(server, client)
	if err != nil || first.CurveID != tls.X25519MLKEM768 || first.DidResume {
		t.Fatalf("curve %v, resumed %v, error %v", first.CurveID, first.DidResume, err)
	}
	if second, err := handshake(server, client); err != nil || !second.DidResume {
		t.Errorf("second: resumed %v, error %v", second.DidResume, err)
	}
}

func TestChoice(t *testing.T) {
	mkdir := t.TempDir
	first, rsaDir := mkdir(), mkdir()
	f, _ := load(t, pairIn(t, first, "Mail.example.org"), pairIn(t, mkdir(), "*.example.org"),
		pairIn(t, mkdir(), "both.example.org"), rsaPair(t, rsaDir, "both.example.org"))
	config := ServerConfig(Chooser{Files: f}, 0)
	rsaOnly := only(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256)
	tests := []struct {
		name, asked string
		client      *tls.Config
		want        string
		algorithm   x509.PublicKeyAlgorithm
	}{
		{"exact", "mail.example.org", &tls.Config{}, "Mail.example.org", x509.ECDSA},
		{"in capitals", "MAIL.EXAMPLE.ORG", &tls.Config{}, "Mail.example.org", x509.ECDSA},
		{"wildcard", "imap.example.org", &tls.Config{}, "*.example.org", x509.ECDSA},
		{"a wildcard is one label", "a.b.example.org", &tls.Config{}, "Mail.example.org", x509.ECDSA},
		{"nor is it none", "example.org", &tls.Config{}, "Mail.example.org", x509.ECDSA},
		{"unknown", "example.com", &tls.Config{}, "Mail.example.org", x509.ECDSA},
		{"none", "", &tls.Config{}, "Mail.example.org", x509.ECDSA},
		{"an address isn't sent", "192.0.2.1", &tls.Config{}, "Mail.example.org", x509.ECDSA},
		{"both kinds of key", "both.example.org", &tls.Config{}, "both.example.org", x509.ECDSA},
		{"a client with RSA only", "both.example.org", rsaOnly, "both.example.org", x509.RSA},
		{"the same, unknown name", "example.com", rsaOnly, "both.example.org", x509.RSA},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client := tt.client.Clone()
			client.ServerName, client.InsecureSkipVerify = tt.asked, true
			state, err := handshake(config, client)
			if err != nil {
				t.Fatal(err)
			}
			leaf := state.PeerCertificates[0]
			if !slices.Contains(leaf.DNSNames, tt.want) || leaf.PublicKeyAlgorithm != tt.algorithm {
				t.Errorf("got %v with %v, want %s with %v", leaf.DNSNames, leaf.PublicKeyAlgorithm, tt.want, tt.algorithm)
			}
		})
	}
}

func TestSelfSigned(t *testing.T) {
	cert, key, err := SelfSigned([]string{"localhost", "127.0.0.1", "::1"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := Pair{filepath.Join(dir, "both.pem"), filepath.Join(dir, "both.pem")} // one file for both
	write(t, p.Cert, append(cert, key...))
	f, _ := load(t, p)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	for name, good := range map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true, "example.org": false} {
		if _, err := handshake(ServerConfig(Chooser{Files: f}, 0), &tls.Config{ServerName: name, RootCAs: roots}); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := SelfSigned(nil, time.Hour); err == nil {
		t.Error("for no host: no error")
	}
}

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	hostname = "bench.example.org"
	patience = 30 * time.Second // for all that must happen
	logName  = "imapwarden.log"
)

// A warden is the program that is measured, in a process of its own.
type warden struct {
	address string
	folder  string
	believe *tls.Config // what its clients go by
	started time.Time
	process *exec.Cmd
	ended   chan error
}

// Settings beside the defaults: all logins come from one address here, and who has no account
// is only observed.
const configuration = `hostname = "%s"

[[listener]]
address = "%s"

[tls]
certificates = [{ cert = "cert.pem", key = "key.pem" }]

[[upstream]]
address = "%s"
tls = "none"

[[rule]]
accounts = ["plain*"]
second_factor = "observe"

[limits]
connections_before_login = 1000
connections_account_address = 1000
connections_account = 1000

[store]
url = "sqlite:%s"
key_file = "%s"

[admin]
socket = ""

[metrics]
address = ""
`

// startWarden builds the program, configures it in the folder and starts it.
func startWarden(ctx context.Context, folder, upstream string) (*warden, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return nil, err
	}
	w := &warden{folder: folder, ended: make(chan error, 1)}
	program := filepath.Join(folder, "imapwarden")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "imapwarden/cmd/imapwarden").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building imapwarden: %w\n%s", err, out)
	}
	if w.believe, err = certify(folder); err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	if w.address, err = freeAddress(); err != nil {
		return nil, err
	}
	config := filepath.Join(folder, "imapwarden.toml")
	text := fmt.Sprintf(configuration, hostname, w.address, upstream, filepath.Join(folder, storeName), filepath.Join(folder, keyName))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(folder, logName))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	w.process = exec.Command(program, "serve", "--config", config)
	w.process.Stdout, w.process.Stderr = log, log
	w.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := w.process.Start(); err != nil {
		return nil, err
	}
	go func() { w.ended <- w.process.Wait() }()
	if err := w.ready(); err != nil {
		return nil, errors.Join(err, w.stop(), errors.New(w.lastWords()))
	}
	return w, nil
}

// ready waits until it greets, which is when its upkeep has begun.
func (w *warden) ready() error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		c, err := w.dial()
		if err == nil {
			w.started = time.Now()
			return c.Close()
		}
		select {
		case err := <-w.ended:
			w.ended <- err
			return fmt.Errorf("imapwarden ended instead of listening: %w", err)
		default:
		}
	}
	return errors.New("imapwarden doesn't listen")
}

// stop ends it and waits for that.
func (w *warden) stop() error {
	w.process.Process.Signal(syscall.SIGTERM) // an error says that it has ended
	select {
	case err := <-w.ended:
		if err != nil {
			return fmt.Errorf("imapwarden ended badly: %w", err)
		}
		return nil
	case <-time.After(patience):
		w.process.Process.Kill()
		return fmt.Errorf("imapwarden didn't end: %w", <-w.ended)
	}
}

// lastWords are the end of its log, for people to read.
func (w *warden) lastWords() string {
	text, err := os.ReadFile(filepath.Join(w.folder, logName))
	if err != nil {
		return err.Error()
	}
	lines := bytes.SplitAfter(text, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-6):], nil))
}

// cpu is how much it has used so far, user and system, of all threads, also of those that have
// ended: its CPU clock (clock_getcpuclockid(3)), which counts in nanoseconds.
func (w *warden) cpu() (time.Duration, error) {
	const scheduler = 2 // CPUCLOCK_SCHED in the kernel's posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(^int32(w.process.Process.Pid)<<3|scheduler, &t); err != nil {
		return 0, fmt.Errorf("reading the CPU clock of imapwarden: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

// certify makes a certificate of the kind that most servers have, and says how to believe it.
func certify(folder string) (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: hostname},
		DNSNames:     []string{hostname},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: der},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, err
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{
		RootCAs: pool, ServerName: hostname, MinVersion: tls.VersionTLS13,
		// Without ML-KEM, which not all mail programs offer: it would make every login dearer, and
		// so the ratios smaller.
		CurvePreferences: []tls.CurveID{tls.X25519},
	}, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Package certs decides which certificate a client is shown. It reads certificates
// and keys from PEM files, reads them again when they change, and chooses by
// the name that the client asked for. It knows nothing of IMAP but the name
// of its ALPN protocol, and meets the rest of the program as a *tls.Config.
//
// What is served is an immutable set behind one atomic pointer: a reload exchanges
// it whole or not at all, and no session notices. Files is safe for concurrent use.
package certs

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// defaultEvery is how often Watch looks at the files.
const defaultEvery = 10 * time.Second

// A Pair names two PEM files: a certificate, its chain after it, and its private
// key. Both may be the same file.
type Pair struct {
	Cert, Key string
}

// Files serves certificates from files. Make one with [Load].
type Files struct {
	// Log is told of reloads, of new files that can't be used, and of warnings,
	// each once. Set it before Watch; nil is silent.
	Log *zap.Logger

	pairs   []Pair
	current atomic.Pointer[set]

	mu     sync.Mutex
	bad    string          // the newest complaint about files that aren't served
	warned map[string]bool // what Log was told
}

// Load reads all pairs. The first is the default, for clients that name no host or
// one that is unknown. The error lists everything that is wrong.
func Load(pairs []Pair) (*Files, error) {
	if len(pairs) == 0 {
		return nil, fmt.Errorf("certs: no certificate is configured; name at least one pair of certificate and key file")
	}
	f := &Files{pairs: pairs, warned: make(map[string]bool)}
	s, err := newSet(readAll(pairs))
	if err != nil {
		return nil, err
	}
	f.current.Store(s)
	return f, nil
}

// Reload reads all files anew and serves them from now on, if each is good;
// otherwise the old ones stay and the error says why. Sessions don't notice.
func (f *Files) Reload() error { return f.use(readAll(f.pairs)) }

func (f *Files) use(texts []text) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := newSet(texts)
	if err != nil {
		f.bad = complaint(texts, err)
		return err
	}
	f.bad = ""
	if f.current.Swap(s).sum != s.sum {
		f.log().Info("certificates reloaded", zap.Strings("names", s.names()), zap.Time("expires", s.expires()))
	}
	return nil
}

// Watch looks at the files again and again, 0: every 10 s, until ctx ends, and serves
// new ones once they have stopped changing. It reads them, a few kilobytes,
// rather than trust modification times, which miss two changes in one tick of
// the clock and say nothing when a symbolic link moves, as those of certbot
// and Kubernetes do.
func (f *Files) Watch(ctx context.Context, every time.Duration) {
	if every <= 0 {
		every = defaultEvery
	}
	settle := min(every, time.Second)
	timer := time.NewTimer(every)
	defer timer.Stop()
	last := f.current.Load().sum
	for {
		f.warn()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		texts := readAll(f.pairs)
		sum := sumOf(texts)
		if sum != last { // still being written, perhaps: the key may come after its certificate
			last = sum
			timer.Reset(settle)
			continue
		}
		timer.Reset(every)
		if sum != f.current.Load().sum {
			f.tryNew(texts)
		} else {
			f.forgive()
		}
	}
}

// tryNew serves settled new files, or says once why it can't.
func (f *Files) tryNew(texts []text) {
	f.mu.Lock()
	known := f.bad
	f.mu.Unlock()
	if err := f.use(texts); err != nil && complaint(texts, err) != known {
		f.log().Error("new certificate files can't be used, the old certificates stay", zap.Error(err))
	}
}

// forgive forgets a complaint when the files that are served are back, so that
// the same mistake is told anew next time.
func (f *Files) forgive() {
	f.mu.Lock()
	f.bad = ""
	f.mu.Unlock()
}

// complaint tells one bad state of the files from another.
func complaint(texts []text, err error) string {
	return fmt.Sprintf("%x %v", sumOf(texts), err)
}

// Warnings says what is unwise about what is served now, such as an expired certificate.
func (f *Files) Warnings() []string { return f.current.Load().warnings(time.Now()) }

// warn tells Log each warning once. Watch calls it again and again, for time makes new ones.
func (f *Files) warn() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.Warnings() {
		if !f.warned[w] {
			f.warned[w] = true
			f.log().Warn("certificate", zap.String("warning", w))
		}
	}
}

func (f *Files) log() *zap.Logger {
	if f.Log == nil {
		return zap.NewNop()
	}
	return f.Log
}

// GetCertificate is a tls.Config's GetCertificate: by the name that the client asked
// for (RFC 6066, section 3), exact before wildcard, and of several for one
// name the first that the client supports, so ECDSA and RSA can stand side
// by side. Without a known name it is the default.
func (f *Files) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.current.Load().choose(hello), nil
}

// find is GetCertificate without a default: nil where no certificate is for the name.
func (f *Files) find(hello *tls.ClientHelloInfo) *tls.Certificate {
	return f.current.Load().find(hello)
}

// sumOf is the hash of all that was read, of modes and errors too.
func sumOf(texts []text) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, t := range texts {
		fmt.Fprintf(h, "%q %d %v %v\n", t.file, len(t.data), t.mode, t.err)
		h.Write(t.data)
	}
	h.Sum(sum[:0])
	return sum
}

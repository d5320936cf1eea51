package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/mholt/acmez/v3"
	"go.uber.org/zap"
)

// patience is how long somebody who answers a challenge's question may take with it.
const patience = 10 * time.Second

// atOnce bounds who is talked to at the same time: an authority asks from a handful of places.
const atOnce = 100

// Serve answers challenges on l, which listens at Address for nothing else, until ctx ends.
// It closes l.
func (a *ACME) Serve(ctx context.Context, l net.Listener) error {
	_ = a.Open(ctx) // its errors are for those who need a certificate
	if a.challenge() == HTTP01 {
		return a.serveHTTP(ctx, l)
	}
	return a.serveTLS(ctx, l)
}

// serveHTTP knows the pages of challenges alone (RFC 8555, section 8.3).
func (a *ACME) serveHTTP(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           a.pages.HTTPChallengeHandler(http.NotFoundHandler()),
		ReadTimeout:       patience,
		ReadHeaderTimeout: patience,
		WriteTimeout:      patience,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          zap.NewStdLog(zap.NewNop()), // anybody can make it complain
	}
	server.SetKeepAlivesEnabled(false)
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(newBounded(l)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("certs: answering the CA at %s: %w", l.Addr(), err)
	}
	return nil
}

// serveTLS makes handshakes that ask for a challenge's answer, and says no more
// (RFC 8737, section 3).
func (a *ACME) serveTLS(ctx context.Context, l net.Listener) error {
	l = newBounded(l)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	config := a.answers()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("certs: answering the CA at %s: %w", l.Addr(), err)
		}
		running.Go(func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			_ = tls.Server(conn, config).HandshakeContext(ctx) // a stranger's failure is no news
		})
	}
}

// ConfigFor is a tls.Config's GetConfigForClient: who asks for a challenge's answer speaks another
// protocol than all others, and is told nothing else. For others it is nil.
func (a *ACME) ConfigFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if a.challenge() == TLSALPN01 && asksForAnswer(hello) {
		return a.answers(), nil
	}
	return nil, nil
}

// answers is how to speak TLS with those who ask for a challenge's answer, and nobody else.
func (a *ACME) answers() *tls.Config {
	return &tls.Config{
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := a.answer(hello); c != nil {
				return c, nil
			}
			return nil, errors.New("certs: no challenge is waiting for this name")
		},
		NextProtos: []string{acmez.ACMETLS1Protocol},
		MinVersion: tls.VersionTLS12,
	}
}

// A bounded listener hangs up on those who come while atOnce others are here.
type bounded struct {
	net.Listener
	places chan struct{}
}

func newBounded(l net.Listener) net.Listener { return bounded{l, make(chan struct{}, atOnce)} }

func (b bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		switch {
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			time.Sleep(100 * time.Millisecond) // it passes
			continue
		case err != nil:
			return nil, err
		}
		select {
		case b.places <- struct{}{}:
			return &placed{Conn: conn, leave: sync.OnceFunc(func() { <-b.places })}, nil
		default:
			conn.Close()
		}
	}
}

type placed struct {
	net.Conn
	leave func()
}

func (p *placed) Close() error {
	defer p.leave()
	return p.Conn.Close()
}

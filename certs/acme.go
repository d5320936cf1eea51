package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// A Challenge is how a certificate authority convinces itself that a name is ours
// (RFC 8555, section 8).
type Challenge string

// The challenges, by what the authority looks at.
const (
	TLSALPN01 Challenge = "tls-alpn-01" // a certificate at the name's port 443 (RFC 8737)
	HTTP01    Challenge = "http-01"     // a page at the name's port 80 (RFC 8555, section 8.3)
	DNS01     Challenge = "dns-01"      // a TXT record of the name (RFC 8555, section 8.4)
)

const (
	defaultCheck = 10 * time.Minute
	defaultRetry = 2 * time.Minute
	longestRetry = time.Hour
)

// ACME gets certificates from a certificate authority (RFC 8555), keeps them in its storage
// and renews them in time, when the authority says so (RFC 9773) or two thirds of their
// life are over. What is stored is served from [ACME.Open] on, whether the authority answers or not.
//
// Several processes may have one storage: one of them asks for a certificate, and all serve it.
type ACME struct {
	Directory   string                // the authority's; "": Let's Encrypt's
	Roots       *x509.CertPool        // what its HTTPS certificate must come from; nil: what this machine believes
	Email       string                // where the authority can write to; "": nowhere
	Binding     *acme.EAB             // of our account to one that its customer has (RFC 8555, section 7.3.4); nil: none
	Domains     []string              // a certificate for each, in lower case; "*.example.org" with DNS01 only
	Challenge   Challenge             // "": TLSALPN01
	Address     string                // host:port of the listener where TLSALPN01 and HTTP01 are answered
	DNS         certmagic.DNSProvider // writes the records of DNS01
	Resolver    string                // host:port of who knows these records; "": those of this machine
	Propagation time.Duration         // how long they may take until they are seen; 0: nobody looks
	Storage     certmagic.Storage
	Log         *zap.Logger   // nil is silent
	Check       time.Duration // how often each certificate is looked at; 0: 10 minutes
	Retry       time.Duration // the wait after a failure, doubled with each up to an hour; 0: 2 minutes

	open    sync.Once
	opened  error
	domains []*domain
	cache   *certmagic.Cache                              // holds a certificate while it is looked at, and else nothing
	solver  *certmagic.Config                             // answers challenges
	pages   *certmagic.ACMEIssuer                         // the same by HTTP
	served  atomic.Pointer[map[string]*servedCertificate] // by domain as in Domains; the map is never changed

	mu         sync.Mutex
	complained time.Time // when Log was told last of a client that was shown nothing
}

// A servedCertificate is what is shown, and when it is to be renewed.
type servedCertificate struct {
	*tls.Certificate
	renewal time.Time
}

// Open reads what is stored for the domains and serves it from now on. It asks nobody
// else, so that a start doesn't wait for the network. A domain that has nothing stored yet is no
// error.
func (a *ACME) Open(ctx context.Context) error {
	a.open.Do(func() { a.opened = a.read(ctx) })
	return a.opened
}

func (a *ACME) read(ctx context.Context) error {
	if a.Log == nil {
		a.Log = zap.NewNop()
	}
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(c certmagic.Certificate) (*certmagic.Config, error) {
			for _, d := range a.domains {
				if slices.Contains(c.Names, d.name) {
					return d.config, nil
				}
			}
			return a.solver, nil
		},
		RenewCheckInterval: defaultCheck,
		Logger:             zap.NewNop(),
	})
	a.solver = a.newConfig(zap.NewNop())
	a.pages = a.solver.Issuers[0].(*certmagic.ACMEIssuer)
	a.served.Store(&map[string]*servedCertificate{})
	var errs []error
	for _, name := range a.Domains {
		d := newDomain(a, name)
		a.domains = append(a.domains, d)
		stored, err := a.stored(ctx, name)
		switch {
		case err == nil:
			a.serve(name, stored)
		case !errors.Is(err, fs.ErrNotExist):
			d.fail(err, time.Time{})
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Run gets and renews certificates until ctx ends. What goes wrong is said in the log and
// tried again, so that it returns nothing but nil.
func (a *ACME) Run(ctx context.Context) error {
	_ = a.Open(ctx) // what can't be read of the storage is each domain's trouble
	var running sync.WaitGroup
	for _, d := range a.domains {
		running.Go(func() { d.keep(ctx) })
	}
	running.Wait()
	a.cache.Stop()
	return nil
}

// Find returns the certificate for the name that the client asks for (RFC 6066, section 3):
// that of the name itself, or of a wildcard, and nil where it has none. To who asks for a challenge's
// answer, and for nothing else, that answer is the certificate (RFC 8737, section 3).
func (a *ACME) Find(hello *tls.ClientHelloInfo) *tls.Certificate {
	if a.solver == nil {
		return nil
	}
	if asksForAnswer(hello) {
		return a.answer(hello)
	}
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	_, parent, _ := strings.Cut(name, ".")
	served := *a.served.Load()
	for _, candidate := range []string{name, "*." + parent} { // one label: RFC 9525, section 6.3
		if c := served[candidate]; c != nil {
			return c.Certificate
		}
		if slices.Contains(a.Domains, candidate) {
			a.complain(candidate)
		}
	}
	return nil
}

// asksForAnswer says whether the client wants a challenge's answer: it speaks no other protocol.
func asksForAnswer(hello *tls.ClientHelloInfo) bool {
	return slices.Equal(hello.SupportedProtos, []string{acmez.ACMETLS1Protocol})
}

// answer proves to the authority that we are who the name leads to.
func (a *ACME) answer(hello *tls.ClientHelloInfo) *tls.Certificate {
	if a.challenge() != TLSALPN01 || hello.ServerName == "" || !asksForAnswer(hello) {
		return nil
	}
	c, err := a.solver.GetCertificateWithContext(hello.Context(), hello)
	if err != nil {
		a.Log.Info("somebody asked for an ACME challenge's answer that isn't being waited for",
			zap.String("name", hello.ServerName), zap.Stringer("source", hello.Conn.RemoteAddr()))
		return nil
	}
	return c
}

// Default returns the certificate of the first domain that has one, for clients that name
// no host or one that is unknown; nil where none has.
func (a *ACME) Default() *tls.Certificate {
	if a.served.Load() == nil {
		return nil
	}
	served := *a.served.Load()
	for _, name := range a.Domains {
		if c := served[name]; c != nil {
			return c.Certificate
		}
	}
	a.complain(strings.Join(a.Domains, ", "))
	return nil
}

// complain says, at most once a minute, that a client had to be turned away.
func (a *ACME) complain(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := time.Now(); now.Sub(a.complained) >= time.Minute {
		a.complained = now
		a.Log.Error("a client can't be served: there is no certificate from the CA yet; 'imapwarden certificate list' says why", zap.String("name", name))
	}
}

// serve shows the certificate from now on, and says whether it is another than before.
func (a *ACME) serve(name string, c *servedCertificate) (isNew bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := *a.served.Load()
	all := make(map[string]*servedCertificate, len(old)+1)
	for other, kept := range old {
		all[other] = kept
	}
	all[name] = c
	a.served.Store(&all)
	return old[name] == nil || !old[name].Leaf.Equal(c.Leaf)
}

// newConfig returns what certmagic works by, without its package's own storage and cache.
func (a *ACME) newConfig(log *zap.Logger) *certmagic.Config {
	config := certmagic.New(a.cache, certmagic.Config{Storage: a.Storage, Logger: log})
	config.Issuers = []certmagic.Issuer{a.newIssuer(config, log)}
	return config
}

// newIssuer returns who asks the authority. certmagic's solvers listen themselves at
// the address that they are told, unless somebody does already: we do.
func (a *ACME) newIssuer(config *certmagic.Config, log *zap.Logger) *certmagic.ACMEIssuer {
	issuer := certmagic.ACMEIssuer{
		CA:                      a.directory(),
		TestCA:                  a.directory(),        // else certmagic turns to Let's Encrypt's for trying out by itself
		Email:                   cmp.Or(a.Email, " "), // a blank is none: without it certmagic would ask at the terminal
		Agreed:                  true,
		ExternalAccount:         a.Binding,
		TrustedRoots:            a.Roots,
		DisableTLSALPNChallenge: a.challenge() != TLSALPN01,
		DisableHTTPChallenge:    a.Challenge != HTTP01,
		Logger:                  log,
	}
	if host, port, err := net.SplitHostPort(a.Address); err == nil {
		issuer.ListenHost = host
		number, _ := strconv.Atoi(port)
		issuer.AltTLSALPNPort, issuer.AltHTTPPort = number, number
	}
	if a.Challenge == DNS01 {
		issuer.DNS01Solver = a.dnsSolver(log)
	}
	return certmagic.NewACMEIssuer(config, issuer)
}

func (a *ACME) dnsSolver(log *zap.Logger) acmez.Solver {
	solver := &certmagic.DNS01Solver{}
	solver.DNSProvider, solver.TTL, solver.Logger = a.DNS, time.Minute, log
	solver.PropagationTimeout = cmp.Or(a.Propagation, -1)
	if a.Resolver != "" {
		solver.Resolvers = []string{a.Resolver}
	}
	return solver
}

func (a *ACME) directory() string { return cmp.Or(a.Directory, certmagic.LetsEncryptProductionCA) }

func (a *ACME) challenge() Challenge { return cmp.Or(a.Challenge, TLSALPN01) }

package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"
)

// A set is the certificates that are served at one time. It is never changed.
type set struct {
	certificates []*tls.Certificate            // in the order of the configuration
	byName       map[string][]*tls.Certificate // by lower-case DNS name, wildcards as they are written
	origins      []origin                      // of each certificate
	sum          [sha256.Size]byte             // of all files
}

// origin is where a certificate was read from.
type origin struct {
	cert, key string
	keyMode   fs.FileMode
}

// newSet makes a set of two texts for each pair, or says all that is wrong with them.
func newSet(texts []text) (*set, error) {
	s := &set{byName: make(map[string][]*tls.Certificate), sum: sumOf(texts)}
	var errs []error
	for pair := range slices.Chunk(texts, 2) {
		c, err := parse(pair[0], pair[1])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.certificates = append(s.certificates, c)
		s.origins = append(s.origins, origin{cert: pair[0].file, key: pair[1].file, keyMode: pair[1].mode})
		for _, name := range c.Leaf.DNSNames { // no common name: RFC 9525, section 6.3
			name = strings.ToLower(name)
			s.byName[name] = append(s.byName[name], c)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return s, nil
}

// choose returns the certificate for a client, the default where none is for the name that it asked for.
func (s *set) choose(hello *tls.ClientHelloInfo) *tls.Certificate {
	if found := s.find(hello); found != nil {
		return found
	}
	return fitting(s.certificates, hello)
}

// find returns the certificate for the name that the client asked for, exact before wildcard; nil where there is none.
func (s *set) find(hello *tls.ClientHelloInfo) *tls.Certificate {
	name := strings.ToLower(hello.ServerName)
	candidates := s.byName[name]
	if candidates == nil {
		if _, parent, found := strings.Cut(name, "."); found {
			candidates = s.byName["*."+parent] // one label: RFC 9525, section 6.3
		}
	}
	if candidates == nil {
		return nil
	}
	return fitting(candidates, hello)
}

// fitting returns the first that the client supports.
func fitting(candidates []*tls.Certificate, hello *tls.ClientHelloInfo) *tls.Certificate {
	// SupportsCertificate would refuse the default certificate for its name, but that is
	// the client's to judge.
	anyName := *hello
	anyName.ServerName = ""
	for _, c := range candidates {
		if anyName.SupportsCertificate(c) == nil {
			return c
		}
	}
	return candidates[0] // crypto/tls says in an alert what doesn't fit
}

func (s *set) warnings(now time.Time) []string {
	var all []string
	for i, c := range s.certificates {
		from := s.origins[i]
		switch {
		case now.After(c.Leaf.NotAfter):
			all = append(all, fmt.Sprintf("%q has expired on %s; mail programs refuse it: renew it", from.cert, day(c.Leaf.NotAfter)))
		case now.Before(c.Leaf.NotBefore):
			all = append(all, fmt.Sprintf("%q is not valid before %s; check this machine's clock", from.cert, day(c.Leaf.NotBefore)))
		}
		all = append(all, weaknesses(c.Leaf, from.cert, now)...)
		if len(c.Leaf.DNSNames) == 0 && len(c.Leaf.IPAddresses) == 0 {
			all = append(all, fmt.Sprintf("%q names no host as subject alternative name; mail programs refuse it", from.cert))
		}
		if from.keyMode&0o004 != 0 {
			all = append(all, fmt.Sprintf("everybody on this machine can read the key %q; chmod o-r it", from.key))
		}
	}
	return all
}

// soon is how long before its end a certificate that nobody renewed is worth a word: ACME clients do it a month before.
const soon = 14 * 24 * time.Hour

// weaknesses says why mail programs may refuse a certificate, now or soon, though it can be served.
func weaknesses(leaf *x509.Certificate, file string, now time.Time) (all []string) {
	add := func(format string, args ...any) {
		all = append(all, fmt.Sprintf("%q "+format, append([]any{file}, args...)...))
	}
	if left := leaf.NotAfter.Sub(now); left > 0 && left < soon && leaf.NotAfter.Sub(leaf.NotBefore) > 2*soon {
		add("expires on %s: renew it", day(leaf.NotAfter))
	}
	switch key := leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < 2048 {
			add("has an RSA key of %d bits, and mail programs want 2048 at least: make a new one", key.N.BitLen())
		}
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P224() {
			add("has a key on the curve P-224, which TLS 1.3 doesn't have: make a new one on P-256")
		}
	}
	switch leaf.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.MD5WithRSA:
		add("is signed with %s, which mail programs don't believe any more: get a new one", leaf.SignatureAlgorithm)
	}
	if len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny) {
		add("isn't for servers (extended key usage); mail programs refuse it")
	}
	return all
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// names are all names that the set has a certificate for.
func (s *set) names() []string { return slices.Sorted(maps.Keys(s.byName)) }

// expires is when the first of its certificates does.
func (s *set) expires() time.Time {
	first := s.certificates[0].Leaf.NotAfter
	for _, c := range s.certificates {
		if c.Leaf.NotAfter.Before(first) {
			first = c.Leaf.NotAfter
		}
	}
	return first
}

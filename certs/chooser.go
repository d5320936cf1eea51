package certs

import (
	"crypto/tls"
	"errors"
)

// errNone is what a handshake fails with where there is nothing to show.
var errNone = errors.New("there is no certificate yet")

// A Chooser chooses among certificates from files and those that a CA gave. At least one of them is set.
type Chooser struct {
	Files *Files
	ACME  *ACME
}

// GetCertificate is a tls.Config's GetCertificate: a file's for the name that the client asked for, the CA's for
// that name, and without a known name the default: the first file's, else the first of the CA's. A CA that asks for
// a challenge's answer gets that.
func (c Chooser) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.Files != nil && (c.ACME == nil || !asksForAnswer(hello)) {
		if found := c.Files.find(hello); found != nil {
			return found, nil
		}
	}
	if c.ACME != nil {
		if found := c.ACME.Find(hello); found != nil {
			return found, nil
		}
	}
	if c.Files != nil {
		return c.Files.GetCertificate(hello)
	}
	if first := c.ACME.Default(); first != nil {
		return first, nil
	}
	return nil, errNone
}

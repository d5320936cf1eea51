package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"imapwarden/audit"
	"imapwarden/auth"
)

// Certificates are those that the server shows its clients.
type Certificates interface {
	// Certificates returns all, those from files first.
	Certificates(ctx context.Context) ([]Certificate, error)
	// RenewCertificate gets a new one from the authority for the name, and returns once it is in
	// use. Names that no authority is asked for are refused.
	RenewCertificate(ctx context.Context, name string) error
}

// A Certificate says how it is about one certificate.
type Certificate struct {
	Names   []string  `json:"names"`
	Source  string    `json:"source"`            // "acme", or the path of its file
	Issuer  string    `json:"issuer"`            // "" where there is none yet
	Key     string    `json:"key"`               // the kind of its key, as in "ECDSA P-256"
	Expires time.Time `json:"expires,omitzero"`  // zero where there is none yet
	Renewal time.Time `json:"renewal,omitzero"`  // when it is renewed; zero where that is somebody else's business
	Trouble string    `json:"trouble"`           // "" is none
	NextTry time.Time `json:"next_try,omitzero"` // to end the trouble; zero: not by itself
}

const maxName = 253 // octets: RFC 1035, section 2.3.4

var errNoCertificates = errors.New("admin: this server doesn't tell of its certificates")

func (s *Server) handleCertificates(serving context.Context, mux *http.ServeMux) {
	mux.HandleFunc("POST /certificate/list", s.answer(func(ctx context.Context, _ *auth.Directory, _ request) (any, error) {
		if s.Certificates == nil {
			return nil, errNoCertificates
		}
		list, err := s.Certificates.Certificates(ctx)
		if list == nil {
			list = []Certificate{} // none is [] in JSON, not null
		}
		return list, err
	}))
	mux.HandleFunc("POST /certificate/renew", unhurried(serving, s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		if s.Certificates == nil {
			return nil, errNoCertificates
		}
		if len(q.Name) > maxName || !goodBanReason(q.Name) {
			return nil, refuse(auth.BadValue, "that is no name of a host")
		}
		err := s.Certificates.RenewCertificate(ctx, q.Name)
		q.record(ctx, audit.Event{Kind: "certificate.renew", Detail: q.Name}, err)
		return nil, err
	})))
}

// Certificates returns all that the server shows its clients, those from files first.
func (c *Client) Certificates(ctx context.Context) (list []Certificate, err error) {
	err = c.ask(ctx, "/certificate/list", request{}, &list)
	return list, err
}

// RenewCertificate gets a new certificate for the name from the authority, and returns once it is
// in use, which takes as long as the authority does.
func (c *Client) RenewCertificate(ctx context.Context, name string) error {
	return c.wait(ctx, "/certificate/renew", request{Name: name}, nil)
}

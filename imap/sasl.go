package imap

import (
	"encoding/base64"
	"errors"

	"github.com/emersion/go-sasl"
)

// Credentials are what a client presented, as it presented them.
type Credentials struct {
	Authzid  string // "" where the mechanism or the client has none
	Username string
	Password []byte
}

// NewSASL returns a server for the mechanism, which only captures what is presented
// (the decision is made afterwards, outside the exchange), or false for a mechanism
// that we don't offer.
func NewSASL(mechanism string, c *Credentials) (sasl.Server, bool) {
	switch mechanism {
	case sasl.Plain:
		return sasl.NewPlainServer(func(authzid, username, password string) error {
			*c = Credentials{authzid, username, []byte(password)}
			return nil
		}), true
	case sasl.Login:
		return &loginServer{credentials: c}, true
	}
	return nil, false
}

// loginServer is the LOGIN mechanism (draft-murchison-sasl-login): two prompts. An
// initial response counts as the user name.
type loginServer struct {
	credentials *Credentials
	named       bool
}

func (s *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil && !s.named:
		return []byte("Username:"), false, nil
	case !s.named:
		s.named, s.credentials.Username = true, string(response)
		return []byte("Password:"), false, nil
	}
	s.credentials.Password = append([]byte(nil), response...)
	return nil, true, nil
}

var errBase64 = errors.New("imap: broken base64")

// DecodeBase64 decodes a client's SASL answer. Padding anywhere but at the end, white
// space and stray bits are errors (RFC 4648, section 3.5): an answer has one reading.
func DecodeBase64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errBase64 // the library's own error quotes the input's offset only, but say no more than needed
	}
	if b == nil {
		b = []byte{}
	}
	return b, nil
}

// DecodeInitial decodes an initial response, where "=" stands for the empty one (RFC 4959).
func DecodeInitial(s string) ([]byte, error) {
	if s == "=" {
		return []byte{}, nil
	}
	return DecodeBase64(s)
}

// EncodePlain is the PLAIN message (RFC 4616), in base64. An empty authzid is the user's own.
func EncodePlain(authzid, username string, password []byte) []byte {
	m := make([]byte, 0, len(authzid)+len(username)+len(password)+2)
	m = append(append(append(m, authzid...), 0), username...)
	m = append(append(m, 0), password...)
	out := make([]byte, base64.StdEncoding.EncodedLen(len(m)))
	base64.StdEncoding.Encode(out, m)
	clear(m)
	return out
}

package proxy

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"slices"
)

// clientLabel marks our entry among a ticket's extras.
var clientLabel = []byte("imapwarden client ")

const clientIDSize = 16

// A tlsClient is who a TLS client is, as far as its session ticket tells. A ticket is a
// secret that one client holds: the id that we put into it is carried over each time the
// session is resumed.
type tlsClient struct {
	brought []byte // by the newest ticket that could be read
	id      []byte // in the ticket that the client has now
}

// A recognizer learns who is at the other end of a handshake. crypto/tls's callbacks aren't told
// for which connection they are called, so each handshake needs a config of its own. Once it is over,
// nothing calls them again: the same config serves the next handshake, though connections
// still hold it. So there are as many as handshakes at one time, not one for each session.
type recognizer struct {
	config *tls.Config
	client *tlsClient // of this handshake
}

// newRecognizer returns one for handshakes by config, whose ticket keys must be set
// (SetSessionTicketKeys) and may change.
func newRecognizer(config *tls.Config) *recognizer {
	r := &recognizer{config: config.Clone()}
	r.config.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		state, err := config.DecryptTicket(ticket, cs)
		if err != nil || state == nil {
			return nil, err
		}
		r.client.brought = clientIn(state)
		return state, nil
	}
	r.config.WrapSession = func(cs tls.ConnectionState, state *tls.SessionState) ([]byte, error) {
		c := r.client
		if c.id = c.known(cs.DidResume); c.id == nil {
			c.id = make([]byte, clientIDSize)
			rand.Read(c.id) // never fails
		}
		state.Extra = append(slices.DeleteFunc(state.Extra, isClientID), slices.Concat(clientLabel, c.id))
		return config.EncryptTicket(cs, state)
	}
	return r
}

// known is the id, nil for a client without tickets. One that a client brought counts only once
// the session is resumed: everybody on the way can copy a ticket of TLS 1.2, but not use it.
func (c *tlsClient) known(resumed bool) []byte {
	if c.id == nil && resumed {
		return c.brought
	}
	return c.id
}

func isClientID(extra []byte) bool {
	return bytes.HasPrefix(extra, clientLabel) && len(extra) == len(clientLabel)+clientIDSize
}

func clientIn(state *tls.SessionState) []byte {
	if i := slices.IndexFunc(state.Extra, isClientID); i >= 0 {
		return state.Extra[i][len(clientLabel):]
	}
	return nil
}

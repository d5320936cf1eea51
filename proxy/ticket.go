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

// recognize returns a copy of config for one handshake, and who will have been at its other
// end. config must have its ticket keys set (SetSessionTicketKeys): those that crypto/tls makes
// by itself don't survive a copy.
func recognize(config *tls.Config) (*tls.Config, *tlsClient) {
	config, c := config.Clone(), new(tlsClient)
	config.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		state, err := config.DecryptTicket(ticket, cs)
		if err != nil || state == nil {
			return nil, err
		}
		c.brought = clientIn(state)
		return state, nil
	}
	config.WrapSession = func(cs tls.ConnectionState, state *tls.SessionState) ([]byte, error) {
		if c.id = c.known(cs.DidResume); c.id == nil {
			c.id = make([]byte, clientIDSize)
			rand.Read(c.id) // never fails
		}
		state.Extra = append(slices.DeleteFunc(state.Extra, isClientID), slices.Concat(clientLabel, c.id))
		return config.EncryptTicket(cs, state)
	}
	return config, c
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

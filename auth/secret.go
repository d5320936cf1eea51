package auth

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
)

// A Secret is a password, a key or a code. It prints as *** under every verb and
// refuses to be marshalled, so that no log line or answer can hold it by accident.
type Secret []byte

const stars = "***"

var errSecret = errors.New("auth: a secret can't be marshalled")

// Equal compares in a time that depends on the lengths alone.
func (s Secret) Equal(other Secret) bool { return subtle.ConstantTimeCompare(s, other) == 1 }

// Wipe overwrites the secret, and all that shares its memory, with zeros.
func (s Secret) Wipe() { clear(s) }

// Format prints stars.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, stars) }

// String returns stars, for those who print without fmt.
func (s Secret) String() string { return stars }

// MarshalText fails; encoding/json and encoding/xml ask it too.
func (s Secret) MarshalText() ([]byte, error) { return nil, errSecret }

// MarshalBinary fails; encoding/gob asks it.
func (s Secret) MarshalBinary() ([]byte, error) { return nil, errSecret }

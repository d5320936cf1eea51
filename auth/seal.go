package auth

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// Seal encrypts a secret for the store (XChaCha20-Poly1305). It opens only for the
// same purpose, account and record id: nobody who can write to the store can move one
// account's authenticator to another. The key's id stands in front.
func (k *Keys) Seal(purpose, account, id string, plaintext []byte) []byte {
	return k.file.current().seal(purpose, account, id, plaintext)
}

func (k key) seal(purpose, account, id string, plaintext []byte) []byte {
	aead := k.aead(purpose)
	sealed, _ := hex.DecodeString(k.id) // parseKey and newKey made it so
	nonce := random(aead.NonceSize())
	sealed = append(sealed, nonce...)
	return aead.Seal(sealed, nonce, plaintext, label(purpose, account, id))
}

// Open decrypts what Seal made.
func (k *Keys) Open(purpose, account, id string, sealed []byte) (Secret, error) {
	if len(sealed) < keyIDSize+chacha20poly1305.NonceSizeX+chacha20poly1305.Overhead {
		return nil, fmt.Errorf("auth: opening the %s secret of %s: it is too short", purpose, account)
	}
	key, err := k.file.find(sealedBy(sealed))
	if err != nil {
		return nil, fmt.Errorf("auth: opening the %s secret of %s: %w", purpose, account, err)
	}
	sealed = sealed[keyIDSize:]
	nonce, sealed := sealed[:chacha20poly1305.NonceSizeX], sealed[chacha20poly1305.NonceSizeX:]
	plaintext, err := key.aead(purpose).Open(nil, nonce, sealed, label(purpose, account, id))
	if err != nil {
		return nil, fmt.Errorf("auth: opening the %s secret of %s: "+
			"it was changed, or made for another account or record", purpose, account)
	}
	return plaintext, nil
}

// sealedBy returns the id of the key that Seal used, "" where the value is too short for one.
func sealedBy(sealed []byte) string {
	if len(sealed) < keyIDSize {
		return ""
	}
	return hex.EncodeToString(sealed[:keyIDSize])
}

// Tag returns a keyed hash (HMAC-SHA-256) by which we know the parts again, and
// which tells nothing of them to those who lack the key, and the id of the key.
func (k *Keys) Tag(purpose string, parts ...[]byte) (tag []byte, keyID string) {
	current := k.file.current()
	return current.tag(purpose, parts...), current.id
}

// TagWith is Tag with the key of that id, nil where the key file doesn't hold it. "" is the
// oldest key.
func (k *Keys) TagWith(keyID, purpose string, parts ...[]byte) []byte {
	if keyID == "" {
		keys := k.file.ring.Load().keys
		return keys[len(keys)-1].tag(purpose, parts...)
	}
	key, err := k.file.find(keyID)
	if err != nil {
		return nil
	}
	return key.tag(purpose, parts...)
}

func (k key) tag(purpose string, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, k.derive("imapwarden tag "+purpose))
	for _, part := range parts {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		mac.Write(size[:])
		mac.Write(part)
	}
	return mac.Sum(nil)
}

func (k key) aead(purpose string) cipher.AEAD {
	aead, err := chacha20poly1305.NewX(k.derive("imapwarden seal " + purpose))
	if err != nil {
		panic("auth: XChaCha20-Poly1305: " + err.Error()) // only for a key of another size
	}
	return aead
}

// derive keeps purposes apart (RFC 5869): a key for one is of no use for another.
func (k key) derive(info string) []byte {
	derived, err := hkdf.Key(sha256.New, k.secret, nil, info, keySize)
	if err != nil {
		panic("auth: HKDF: " + err.Error()) // only for more output than 255 hashes
	}
	return derived
}

// label is the additional data of a seal: each part behind its length, so that
// no two triples look the same.
func label(parts ...string) []byte {
	var b []byte
	for _, part := range parts {
		b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b
}

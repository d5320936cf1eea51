package audit

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const webhookKeySize = 32 // octets

// A WebhookKey is what alerts are signed with: 32 octets. It prints as *** under every verb
// and refuses to be marshalled.
type WebhookKey []byte

// Format prints stars.
func (k WebhookKey) Format(f fmt.State, _ rune) { io.WriteString(f, "***") }

// String returns stars, for those who print without fmt.
func (k WebhookKey) String() string { return "***" }

// MarshalText fails; encoding/json asks it too.
func (k WebhookKey) MarshalText() ([]byte, error) {
	return nil, errors.New("audit: a key can't be marshalled")
}

// OpenWebhookKey loads the key file, and makes one where there is none.
func OpenWebhookKey(path string) (WebhookKey, error) {
	key, err := LoadWebhookKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	fresh := make([]byte, webhookKeySize)
	rand.Read(fresh)
	if err := createKeyFile(path, hex.EncodeToString(fresh)+"\n"); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("audit: making the webhook's key file %s, in a folder where we may write: %w", path, err)
	}
	return LoadWebhookKey(path) // where another process was quicker, its key counts
}

// LoadWebhookKey reads a file of 64 hexadecimal digits. A file that others than its owner may
// read is an error, and one that isn't there is fs.ErrNotExist.
func LoadWebhookKey(path string) (WebhookKey, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("audit: reading the webhook's key file: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("audit: reading the webhook's key file: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("audit: the webhook's key file %s is not a file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("audit: the webhook's key file %s is open to others than its owner (mode %04o): chmod 600 %s",
			path, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(file, 1024))
	if err != nil {
		return nil, fmt.Errorf("audit: reading the webhook's key file: %w", err)
	}
	// The decoder's own error would quote a digit of the key.
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != webhookKeySize {
		return nil, fmt.Errorf("audit: the webhook's key file %s doesn't hold 64 hexadecimal digits: "+
			"restore it, or remove it, and the next start makes one that the receiver must be told", path)
	}
	return key, nil
}

// createKeyFile makes a file, whole and on the disk or not at all, and overwrites none.
func createKeyFile(path, text string) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.WriteString(text)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err := os.Link(temp.Name(), path); err != nil { // unlike a rename, never overwrites
		return err
	}
	return syncFolder(path)
}

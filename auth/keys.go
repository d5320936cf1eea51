package auth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const (
	keyMark     = "key-id" // the mark with the id of the key that the store was sealed with
	keySize     = 32
	keyIDSize   = 4 // octets; twice that in hexadecimal
	maxKeyFile  = 64 << 10
	keyPreamble = `# imapwarden: the keys that seal this installation's secrets.
# Keep a backup apart from the store's: without this file every authenticator is lost.
# The first key seals; the others only open what they sealed before.
`
)

// Keys are the keys of the key file. They don't change and may be used by all.
type Keys struct {
	keys []key // the first is the current one
}

type key struct {
	id     string // hexadecimal
	secret Secret
}

// Format prints stars: fmt looks into private fields without asking their types.
func (k Keys) Format(f fmt.State, _ rune) { io.WriteString(f, stars) }

// MarshalText fails, as a Secret's does.
func (k Keys) MarshalText() ([]byte, error) { return nil, errSecret }

// ID returns the id of the current key, which is no secret.
func (k *Keys) ID() string { return k.keys[0].id }

// OpenKeys loads the key file that belongs to a store. At the very first start it
// makes the file, and in any case it leaves the key's id in the store. A store
// that was sealed with another key is an error, and no key is ever made for it:
// a new one would hide the loss until the last backup was gone.
func OpenKeys(ctx context.Context, path string, marks Marks) (*Keys, error) {
	mark, err := marks.Mark(ctx, keyMark)
	if err != nil {
		return nil, fmt.Errorf("auth: asking the store for the id of its key: %w", err)
	}
	keys, err := LoadKeys(path)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case missing && mark != "":
		return nil, fmt.Errorf("auth: key file %s is missing, and the store was sealed with its key %s: "+
			"restore the file from its backup; a new key could not open what the store holds", path, mark)
	case missing:
		if keys, err = CreateKeys(path); errors.Is(err, fs.ErrExist) { // another process was quicker
			keys, err = LoadKeys(path)
		}
	}
	if err != nil {
		return nil, err
	}
	if mark == "" {
		if err := marks.SetMark(ctx, keyMark, keys.ID()); err != nil {
			return nil, fmt.Errorf("auth: writing the id of its key to the store: %w", err)
		}
	} else if _, ok := keys.find(mark); !ok {
		return nil, fmt.Errorf("auth: key file %s doesn't hold key %s, with which the store was sealed: "+
			"restore the file that belongs to this store from its backup", path, mark)
	}
	return keys, nil
}

// CreateKeys makes a key file with one new key. A file that is already there
// stays as it is: the error is then fs.ErrExist.
func CreateKeys(path string) (*Keys, error) {
	k := key{hex.EncodeToString(random(keyIDSize)), random(keySize)}
	line := fmt.Sprintf("key %s %s\n", k.id, base64.StdEncoding.EncodeToString(k.secret))
	if err := writeNew(path, keyPreamble+line); err != nil {
		return nil, fmt.Errorf("auth: making key file %s: %w", path, err)
	}
	return &Keys{[]key{k}}, nil
}

// writeNew makes a file, whole and on the disk or not at all, and overwrites none.
func writeNew(path, text string) error {
	folder := filepath.Dir(path)
	temp, err := os.CreateTemp(folder, ".key-*") // mode 0600
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
	dir, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// LoadKeys reads a key file: lines of "key", an id of eight hexadecimal digits and
// 32 octets in base64, beside blank lines and comments. It refuses a file
// that others than its owner may read.
func LoadKeys(path string) (*Keys, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("auth: reading the key file: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("auth: reading the key file: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("auth: key file %s is not a file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("auth: key file %s is open to others than its owner (mode %04o): chmod 600 %s",
			path, info.Mode().Perm(), path)
	case info.Size() > maxKeyFile:
		return nil, fmt.Errorf("auth: key file %s is too large to be one", path)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("auth: reading the key file: %w", err)
	}
	return parseKeys(path, string(text))
}

// parseKeys names a bad line by its number: the line itself may be a key.
func parseKeys(path, text string) (*Keys, error) {
	keys := new(Keys)
	number := 0
	for line := range strings.Lines(text) {
		number++
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		k, err := parseKey(line)
		if err != nil {
			return nil, fmt.Errorf("auth: key file %s, line %d: %w", path, number, err)
		}
		if _, twice := keys.find(k.id); twice {
			return nil, fmt.Errorf("auth: key file %s, line %d: key %s stands there twice", path, number, k.id)
		}
		keys.keys = append(keys.keys, k)
	}
	if len(keys.keys) == 0 {
		return nil, fmt.Errorf("auth: key file %s holds no key: restore it from its backup", path)
	}
	return keys, nil
}

func parseKey(line string) (key, error) {
	fields := strings.Fields(line)
	if len(fields) != 3 || fields[0] != "key" {
		return key{}, errors.New(`this is not "key", an id and the key in base64`)
	}
	id, err := hex.DecodeString(fields[1])
	if err != nil || len(id) != keyIDSize {
		return key{}, errors.New("the id is not eight hexadecimal digits")
	}
	secret, err := base64.StdEncoding.DecodeString(fields[2])
	if err != nil || len(secret) != keySize {
		return key{}, errors.New("the key is not 32 octets in base64")
	}
	return key{hex.EncodeToString(id), secret}, nil
}

func (k *Keys) find(id string) (key, bool) {
	for _, key := range k.keys {
		if key.id == id {
			return key, true
		}
	}
	return key{}, false
}

// random returns n octets that nobody can guess; it can't fail (crypto/rand).
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

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
	"sync"
	"sync/atomic"
	"time"
)

const (
	keyMark     = "key-id" // the mark with the id of the key that the store was sealed with
	keySize     = 32
	keyIDSize   = 4 // octets; twice that in hexadecimal
	maxKeyFile  = 64 << 10
	lookEvery   = time.Second // how often at most the key file is looked at for a rotation
	keyPreamble = `# imapwarden: the keys that seal this installation's secrets.
# Keep a backup apart from the store's: without this file every authenticator is lost.
# The first key seals; the others only open what they sealed before.
`
)

// Keys are the keys of the key file, as they are now: they follow it when another process
// rotates. All may use them at the same time.
type Keys struct{ file *keyFile }

// A keyFile is where the file is, and what we last read there.
type keyFile struct {
	path   string
	disk   disk
	ring   atomic.Pointer[keyRing]
	looked atomic.Int64 // when Seal or Tag last looked for a rotation, in Unix nanoseconds

	mu     sync.Mutex // around reading and replacing the file
	sought time.Time  // when an unknown id last had us look
}

// A keyRing is what a key file held once. It doesn't change.
type keyRing struct {
	keys []key       // the first is the current one
	info fs.FileInfo // of that file, to know it again
}

type key struct {
	id     string // hexadecimal
	secret Secret
}

func newKeys(path string, ring *keyRing) *Keys {
	file := &keyFile{path: path, disk: osDisk{}}
	file.ring.Store(ring)
	return &Keys{file}
}

// Format prints stars: fmt looks into private fields without asking their types.
func (k Keys) Format(f fmt.State, _ rune) { io.WriteString(f, stars) }

// MarshalText fails, as a Secret's does.
func (k Keys) MarshalText() ([]byte, error) { return nil, errSecret }

// ID returns the id of the current key, which is no secret.
func (k *Keys) ID() string { return k.file.ring.Load().keys[0].id }

// IDs returns the ids of all keys, the current one first and the oldest last.
func (k *Keys) IDs() []string {
	k.file.current() // for its look
	return k.file.ring.Load().ids()
}

// Reload reads the key file again if it has changed. A file that can't be read, or that
// holds none of our keys, is an error, and the keys stay as they were: whoever puts a wrong
// file there shall find out at the next start, before anything is sealed with it.
func (k *Keys) Reload() error {
	k.file.mu.Lock()
	defer k.file.mu.Unlock()
	return k.file.reload("")
}

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
	} else if err := keys.file.ring.Load().belongs(path, mark); err != nil {
		return nil, err
	}
	return keys, nil
}

// belongs returns an error where the store was sealed with a key that isn't there.
func (r *keyRing) belongs(path, mark string) error {
	if _, ok := r.find(mark); ok || mark == "" {
		return nil
	}
	return fmt.Errorf("auth: key file %s doesn't hold key %s, with which the store was sealed, but %s: "+
		"it is another installation's, or a backup from before the keys were rotated; "+
		"restore the newest backup of the file that belongs to this store", path, mark, strings.Join(r.ids(), ", "))
}

// CreateKeys makes a key file with one new key. A file that is already there
// stays as it is: the error is then fs.ErrExist.
func CreateKeys(path string) (*Keys, error) {
	if err := writeNew(path, keyText([]key{newKey()})); err != nil {
		return nil, fmt.Errorf("auth: making key file %s, in a folder where we may write: %w", path, err)
	}
	return LoadKeys(path)
}

func newKey() key { return key{hex.EncodeToString(random(keyIDSize)), random(keySize)} }

// keyText is what parseKeys reads.
func keyText(keys []key) string {
	var text strings.Builder
	text.WriteString(keyPreamble)
	for _, k := range keys {
		fmt.Fprintf(&text, "key %s %s\n", k.id, base64.StdEncoding.EncodeToString(k.secret))
	}
	return text.String()
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
	return osDisk{}.syncFolder(folder)
}

// LoadKeys reads a key file: lines of "key", an id of eight hexadecimal digits and
// 32 octets in base64, beside blank lines and comments. It refuses a file
// that others than its owner may read.
func LoadKeys(path string) (*Keys, error) {
	ring, err := readKeys(path)
	if err != nil {
		return nil, err
	}
	return newKeys(path, ring), nil
}

func readKeys(path string) (*keyRing, error) {
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
	ring, err := parseKeys(path, string(text))
	if err != nil {
		return nil, err
	}
	ring.info = info
	return ring, nil
}

// parseKeys names a bad line by its number: the line itself may be a key.
func parseKeys(path, text string) (*keyRing, error) {
	ring := new(keyRing)
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
		if _, twice := ring.find(k.id); twice {
			return nil, fmt.Errorf("auth: key file %s, line %d: key %s stands there twice", path, number, k.id)
		}
		ring.keys = append(ring.keys, k)
	}
	if len(ring.keys) == 0 {
		return nil, fmt.Errorf("auth: key file %s holds no key: restore it from its backup", path)
	}
	return ring, nil
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

func (r *keyRing) find(id string) (key, bool) {
	for _, key := range r.keys {
		if key.id == id {
			return key, true
		}
	}
	return key{}, false
}

func (r *keyRing) ids() []string {
	ids := make([]string, len(r.keys))
	for i, key := range r.keys {
		ids[i] = key.id
	}
	return ids
}

// isFrom says whether the file still is the one that was read. A rotation makes a new one.
func (r *keyRing) isFrom(info fs.FileInfo) bool {
	return os.SameFile(r.info, info) && r.info.ModTime().Equal(info.ModTime()) && r.info.Size() == info.Size()
}

// current returns the key that seals and tags, after a look for a rotation by another process.
// The key before is dropped at the rotation after the next at the latest, and with it
// whatever somebody had gone on to seal with it.
func (f *keyFile) current() key {
	now, last := time.Now().UnixNano(), f.looked.Load()
	// Not since a time to come: the clock was put back.
	if age := now - last; (age < 0 || age >= int64(lookEvery)) && f.looked.CompareAndSwap(last, now) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.reload("") // the keys that we have still serve where it fails
	}
	return f.ring.Load().keys[0]
}

// find returns the key of that id, of which the file is asked again, at most once a second,
// where we don't know it: another process may have rotated.
func (f *keyFile) find(id string) (key, error) {
	if key, ok := f.ring.Load().find(id); ok {
		return key, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if age := time.Since(f.sought); age < 0 || age >= lookEvery {
		f.sought = time.Now()
		if err := f.reload(id); err != nil {
			return key{}, fmt.Errorf("key %s is unknown, and the key file tells no more: %w", id, err)
		}
	}
	if key, ok := f.ring.Load().find(id); ok {
		return key, nil
	}
	return key{}, fmt.Errorf("key %s is not in key file %s: restore the file from its backup", id, f.path)
}

// reload is Reload, under mu. A file with the wanted key is ours even if it shares none with what
// we have: it was rotated twice while nobody looked.
func (f *keyFile) reload(wanted string) error {
	known := f.ring.Load()
	info, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("auth: looking whether the key file has changed: %w", err)
	}
	if known.isFrom(info) {
		return nil
	}
	ring, err := readKeys(f.path)
	if err != nil {
		return err
	}
	_, ours := ring.find(wanted)
	for _, key := range known.keys {
		found, ok := ring.find(key.id)
		ours = ours || ok && found.secret.Equal(key.secret)
	}
	if !ours {
		return fmt.Errorf("auth: key file %s was replaced by one that holds none of the keys in use, %s: "+
			"restore the file that belongs to this store from its backup", f.path, strings.Join(known.ids(), ", "))
	}
	f.ring.Store(ring)
	return nil
}

// random returns n octets that nobody can guess; it can't fail (crypto/rand).
func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

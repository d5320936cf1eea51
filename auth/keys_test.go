package auth

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOpenKeysAtFirstStartAndLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	records := newFake()
	first, err := OpenKeys(t.Context(), path, records)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if records.marks["key-id"] != first.ID() {
		t.Error("the store doesn't know its key")
	}
	sealed := first.Seal("totp", "alice", "1", []byte(open))
	again, err := OpenKeys(t.Context(), path, records)
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := again.Open("totp", "alice", "1", sealed); err != nil || string(secret) != open {
		t.Errorf("not opened after a restart: %v", err)
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("%d files left, want the key file alone", len(files))
	}
}

func TestOpenKeysNeverReplacesALostKey(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "master.key")
	records := newFake()
	keys, err := OpenKeys(t.Context(), path, records)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err = OpenKeys(t.Context(), path, records)
	for _, part := range []string{path, keys.ID(), "missing", "backup"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("missing file: %v doesn't say %q", err, part)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a new file was made")
	}
	if _, err := CreateKeys(path); err != nil {
		t.Fatal(err)
	}
	_, err = OpenKeys(t.Context(), path, records)
	for _, part := range []string{path, keys.ID(), "backup", "another installation's"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("another file: %v doesn't say %q", err, part)
		}
	}
	records.setDown(true)
	if _, err := OpenKeys(t.Context(), filepath.Join(folder, "new.key"), records); !errors.Is(err, errDown) {
		t.Errorf("store down: %v", err)
	}
	if files, _ := os.ReadDir(folder); len(files) != 1 {
		t.Error("a key was made for a store that doesn't answer")
	}
}

func TestCreateKeysOverwritesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateKeys(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("got %v, want fs.ErrExist", err)
	}
	if text, _ := os.ReadFile(path); string(text) != "precious" {
		t.Error("overwritten")
	}
}

func TestLoadKeysRefuses(t *testing.T) {
	secret := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	good := "# comment\n\nkey 00c0ffee " + secret + "\n"
	tests := []struct {
		name, text string
		mode       fs.FileMode
		says       string // "": loads
	}{
		{"good", good, 0o600, ""},
		{"read-only", good, 0o400, ""},
		{"two keys", good + "key 11111111 " + secret, 0o600, ""},
		{"group", good, 0o640, "chmod 600"},
		{"others", good, 0o604, "chmod 600"},
		{"empty", "", 0o600, "no key"},
		{"comment only", "# nothing\n", 0o600, "no key"},
		{"twice", good + good, 0o600, "line 6: key 00c0ffee stands there twice"},
		{"short id", "key c0ffee " + secret, 0o600, "line 1"},
		{"short key", "key 00c0ffee " + secret[:20], 0o600, "32 octets"},
		{"not base64", "key 00c0ffee !" + secret[1:], 0o600, "32 octets"},
		{"one field more", strings.TrimSpace(good) + " x", 0o600, "line 3"},
		{"another word", "sey 00c0ffee " + secret, 0o600, "line 1"},
		{"too large", good + strings.Repeat("#\n", maxKeyFile), 0o600, "too large"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "master.key")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, test.mode); err != nil {
				t.Fatal(err)
			}
			_, err := LoadKeys(path)
			if test.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %q and the path", err, test.says)
			} else if strings.Contains(err.Error(), secret[1:20]) {
				t.Error("the error shows the key")
			}
		})
	}
	if _, err := LoadKeys(t.TempDir()); err == nil {
		t.Error("a folder was loaded")
	}
}

func TestSealOpensOnlyWhatItMade(t *testing.T) {
	keys := testKeys(t)
	sealed := keys.Seal("totp", "alice", "1", []byte(open))
	if bytes.Contains(sealed, []byte(open)) || bytes.Equal(sealed, keys.Seal("totp", "alice", "1", []byte(open))) {
		t.Fatal("not sealed, or twice with the same nonce")
	}
	if secret, err := keys.Open("totp", "alice", "1", sealed); err != nil || string(secret) != open {
		t.Fatalf("not opened: %v", err)
	}
	for _, other := range [][3]string{
		{"totp", "alice", "2"}, {"totp", "bob", "1"}, {"vault", "alice", "1"}, {"totp", "alice1", ""}, {"totp", "", "alice1"},
	} {
		if _, err := keys.Open(other[0], other[1], other[2], sealed); err == nil {
			t.Errorf("opened as %v", other)
		}
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if _, err := keys.Open("totp", "alice", "1", changed); err == nil {
			t.Errorf("opened with octet %d changed", i)
		}
		if _, err := keys.Open("totp", "alice", "1", sealed[:i]); err == nil {
			t.Errorf("opened when cut to %d octets", i)
		}
	}
	if _, err := testKeys(t).Open("totp", "alice", "1", sealed); err == nil || !strings.Contains(err.Error(), keys.ID()) {
		t.Errorf("another key: %v doesn't name the right one", err)
	}
	rotated := keysOf(append(testKeys(t).held(), keys.held()...)...)
	if _, err := rotated.Open("totp", "alice", "1", sealed); err != nil {
		t.Errorf("an older key doesn't open: %v", err)
	}
}

func TestTagTellsPartsApart(t *testing.T) {
	keys := testKeys(t)
	tagOf := func(keys *Keys, purpose string, parts ...[]byte) []byte {
		tag, id := keys.Tag(purpose, parts...)
		if id != keys.ID() || !bytes.Equal(tag, keys.TagWith(id, purpose, parts...)) {
			t.Error("TagWith and the id of Tag give another tag")
		}
		return tag
	}
	seen := map[string]string{}
	for name, tag := range map[string][]byte{
		"a,b":       tagOf(keys, "p", []byte("a"), []byte("b")),
		"ab":        tagOf(keys, "p", []byte("ab")),
		"ab,":       tagOf(keys, "p", []byte("ab"), nil),
		",ab":       tagOf(keys, "p", nil, []byte("ab")),
		"a,b for q": tagOf(keys, "q", []byte("a"), []byte("b")),
		"other key": tagOf(testKeys(t), "p", []byte("a"), []byte("b")),
	} {
		if twin, ok := seen[string(tag)]; ok {
			t.Errorf("%s has the tag of %s", name, twin)
		}
		seen[string(tag)] = name
	}
	if !bytes.Equal(tagOf(keys, "p", []byte("a")), tagOf(keys, "p", []byte("a"))) {
		t.Error("the same parts have two tags")
	}
	if keys.TagWith("ffffffff", "p", []byte("a")) != nil {
		t.Error("a tag with a key that isn't there")
	}
}

// BenchmarkTag says what one tag costs, HKDF included. A login makes fewer than ten.
func BenchmarkTag(b *testing.B) {
	keys := keysOf(newKey())
	for b.Loop() {
		keys.Tag("grant-password", []byte("alice"), []byte(open))
	}
}

// BenchmarkDerive says how much of it a cache of derived keys would save.
func BenchmarkDerive(b *testing.B) {
	k := newKey()
	for b.Loop() {
		k.derive("imapwarden tag grant-password")
	}
}

func testKeys(t *testing.T) *Keys {
	t.Helper()
	keys, err := OpenKeys(context.Background(), filepath.Join(t.TempDir(), "master.key"), newFake())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// keysOf returns keys that have no file.
func keysOf(keys ...key) *Keys { return newKeys("", &keyRing{keys: keys}) }

func (k *Keys) held() []key { return slices.Clone(k.file.ring.Load().keys) }

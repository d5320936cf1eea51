package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"imapwarden/auth"
	"imapwarden/certs"
	"imapwarden/store"
)

// brokenFiles let the n-th sealing anew from now fail.
type brokenFiles struct {
	store.Engine
	left int
}

var errBrokenFiles = errors.New("broken")

func (b *brokenFiles) ResealFile(ctx context.Context, name string, old, sealed []byte) (bool, error) {
	if b.left--; b.left == -1 {
		return false, errBrokenFiles
	}
	return b.Engine.ResealFile(ctx, name, old, sealed)
}

// However many rotations end half-way, the private keys of certificates open with the keys that
// the file still holds; and whole ones leave no older key in use.
func TestRotateKeysSealsCertificates(t *testing.T) {
	opened, err := store.Open(t.Context(), "memory:")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "master.key")
	keys, err := auth.OpenKeys(t.Context(), path, opened)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"a", "b", "c"}
	for _, name := range names {
		if err := certs.NewStorage(opened, fileKeys{keys}, time.Now).Store(t.Context(), name, []byte("key of "+name)); err != nil {
			t.Fatal(err)
		}
	}
	intact := func() {
		t.Helper()
		keys, err := auth.LoadKeys(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			value, err := certs.NewStorage(opened, fileKeys{keys}, time.Now).Load(t.Context(), name)
			if err != nil || string(value) != "key of "+name {
				t.Errorf("%s: got %q, %v", name, value, err)
			}
		}
	}
	rotate := func() {
		t.Helper()
		rotation, err := rotateKeys(t.Context(), keys, opened)
		if err != nil || len(rotation.Kept) != 1 {
			t.Errorf("got %+v, %v", rotation, err)
		}
		intact()
		for _, name := range names {
			f, err := opened.LoadFile(t.Context(), name)
			if err != nil || !(fileKeys{keys}).IsCurrent(f.Value) {
				t.Errorf("%s isn't sealed with the new key, %v", name, err)
			}
		}
	}
	rotate()
	for left := range 4 {
		t.Run(fmt.Sprint("file ", left), func(t *testing.T) {
			rotate()
			broken := &store.Store{Engine: &brokenFiles{opened.Engine, left}}
			_, err := rotateKeys(t.Context(), keys, broken)
			if (err != nil) != (left < 3) || err != nil && !errors.Is(err, errBrokenFiles) {
				t.Errorf("got %v", err)
			}
			intact()
		})
	}
	for range 5 { // nothing is left of the rotation before the last one
		broken := &store.Store{Engine: &brokenFiles{opened.Engine, 0}}
		_, err := rotateKeys(t.Context(), keys, broken)
		if !errors.Is(err, errBrokenFiles) {
			t.Errorf("got %v", err)
		}
		intact()
	}
	rotate()
}

func TestRotateKeysIsDoneByOneAtATime(t *testing.T) {
	opened, err := store.Open(t.Context(), "memory:")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := auth.OpenKeys(t.Context(), filepath.Join(t.TempDir(), "master.key"), opened)
	if err != nil {
		t.Fatal(err)
	}
	locks := certs.NewStorage(opened, fileKeys{keys}, time.Now)
	if err := locks.Store(t.Context(), "certificate", []byte("one")); err != nil {
		t.Fatal(err)
	}
	if won, err := locks.TryLock(t.Context(), "key-rotation"); !won || err != nil {
		t.Fatal(won, err)
	}
	before := keys.IDs()
	if _, err := rotateKeys(t.Context(), keys, opened); !errors.Is(err, auth.ErrRotating) {
		t.Errorf("got %v, want auth.ErrRotating", err)
	}
	if !slices.Equal(keys.IDs(), before) {
		t.Error("the keys were changed")
	}
	if err := locks.Unlock(t.Context(), "key-rotation"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := rotateKeys(t.Context(), keys, opened); err != nil {
			t.Error(err)
		}
	}
}

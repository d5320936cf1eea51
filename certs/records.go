package certs

import (
	"context"
	"errors"
	"time"
)

// ErrNoFile says that the store knows no file of that name.
var ErrNoFile = errors.New("certs: no such file")

// A File is a value that ACME keeps: an account with a CA, a certificate, its private key.
type File struct {
	Name     string // like a path: "certificates/CA/mail.example.org/mail.example.org.key"
	Value    []byte // sealed by Storage
	Modified time.Time
	Size     int64 // in octets, before it was sealed
}

// Records keeps the files of ACME. The stores implement it. A file is below another where its
// name goes on with a slash: "a/b" is below "a", "ab" is not; and all are below "".
type Records interface {
	// SaveFile creates the file, or replaces the one of its name.
	SaveFile(ctx context.Context, f File) error
	// LoadFile returns the file of that name, or ErrNoFile.
	LoadFile(ctx context.Context, name string) (File, error)
	// ResealFile replaces the value where it still is old, and leaves all else of the file.
	ResealFile(ctx context.Context, name string, old, sealed []byte) (won bool, err error)
	// DeleteFiles removes the file of that name, and all below it.
	DeleteFiles(ctx context.Context, name string) error
	// ListFiles returns the file of that name and all below it, by name, octet by octet, without
	// their values.
	ListFiles(ctx context.Context, name string) ([]File, error)
	// LeaseFile gives the holder the lease of that name until then, unless another's runs
	// until after now, and says whether it did. Its holder prolongs it by asking again. There need be no file.
	LeaseFile(ctx context.Context, name, holder string, now, until time.Time) (won bool, err error)
	// ReleaseFile ends the lease where it is the holder's.
	ReleaseFile(ctx context.Context, name, holder string) error
}

// A Sealer encrypts the values of files for the store. It is the key file.
type Sealer interface {
	// Seal encrypts what then opens under the same name alone.
	Seal(name string, plaintext []byte) (sealed []byte)
	// Open decrypts what Seal made.
	Open(name string, sealed []byte) (plaintext []byte, err error)
	// IsCurrent says whether Seal would use the same key now.
	IsCurrent(sealed []byte) bool
}

package memory

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"imapwarden/certs"
)

// A lease of a name, for what ACME does with it.
type lease struct {
	holder string
	until  time.Time
}

// SaveFile creates the file, or replaces the one of its name.
func (s *Store) SaveFile(ctx context.Context, f certs.File) error {
	if err := s.enter(ctx, "writing a file of certificates"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	f.Value, f.Modified = bytes.Clone(f.Value), inMicros(f.Modified)
	s.files[f.Name] = f
	return nil
}

// LoadFile returns the file of that name, or certs.ErrNoFile.
func (s *Store) LoadFile(ctx context.Context, name string) (certs.File, error) {
	if err := s.enter(ctx, "reading a file of certificates"); err != nil {
		return certs.File{}, err
	}
	defer s.mu.Unlock()
	f, ok := s.files[name]
	if !ok {
		return certs.File{}, certs.ErrNoFile
	}
	f.Value = bytes.Clone(f.Value)
	return f, nil
}

// ResealFile replaces the value where it still is old, and leaves all else of the file.
func (s *Store) ResealFile(ctx context.Context, name string, old, sealed []byte) (won bool, err error) {
	if err := s.enter(ctx, "sealing a file of certificates anew"); err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	f, ok := s.files[name]
	if !ok || !bytes.Equal(f.Value, old) {
		return false, nil
	}
	f.Value = bytes.Clone(sealed)
	s.files[name] = f
	return true, nil
}

// DeleteFiles removes the file of that name, and all below it.
func (s *Store) DeleteFiles(ctx context.Context, name string) error {
	if err := s.enter(ctx, "removing files of certificates"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	maps.DeleteFunc(s.files, func(file string, _ certs.File) bool { return isAtOrBelow(file, name) })
	return nil
}

// ListFiles returns the file of that name and all below it, by name, without their values.
func (s *Store) ListFiles(ctx context.Context, name string) ([]certs.File, error) {
	if err := s.enter(ctx, "listing files of certificates"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	var files []certs.File
	for _, f := range s.files {
		if isAtOrBelow(f.Name, name) {
			f.Value = nil
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b certs.File) int { return cmp.Compare(a.Name, b.Name) })
	return files, nil
}

func isAtOrBelow(file, name string) bool {
	return name == "" || file == name || strings.HasPrefix(file, name+"/")
}

// LeaseFile gives the holder the lease of that name, unless another's still runs.
func (s *Store) LeaseFile(ctx context.Context, name, holder string, now, until time.Time) (won bool, err error) {
	if err := s.enter(ctx, "leasing a name of certificates"); err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	if l, ok := s.leases[name]; ok && l.holder != holder && l.until.After(inMicros(now)) {
		return false, nil
	}
	s.leases[name] = lease{holder, inMicros(until)}
	return true, nil
}

// ReleaseFile ends the lease where it is the holder's.
func (s *Store) ReleaseFile(ctx context.Context, name, holder string) error {
	if err := s.enter(ctx, "releasing a name of certificates"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if s.leases[name].holder == holder {
		delete(s.leases, name)
	}
	return nil
}

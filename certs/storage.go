package certs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
)

const (
	maxStored   = 1 << 20 // octets; a chain of certificates has some thousand
	maxFileName = 1024    // octets

	leaseLife = 30 * time.Second // how long a lock outlives a process that was killed
	leaseStep = leaseLife / 3    // how often it is prolonged: twice it may fail
	leasePoll = time.Second      // how often a lock that another process holds is tried
)

// A Storage is where certmagic keeps its files: sealed, in Records. It is safe for concurrent
// use, and several processes may share the Records.
//
// A lock is a lease that is prolonged until Unlock. It runs out by itself where its process
// has ended; where the records can't be written for long, another process may get it too.
// certmagic must live with that, and does: it looks again whether there is something to be done.
type Storage struct {
	records Records
	seal    Sealer
	now     func() time.Time

	mu    sync.Mutex
	turns map[string]chan struct{} // by a lock's name; whoever could put something in has its turn in this process
	locks map[string]*lock         // by name; those that are held
}

var (
	_ certmagic.Storage   = (*Storage)(nil)
	_ certmagic.TryLocker = (*Storage)(nil)
)

// NewStorage returns a storage; now tells the time, which the processes that share the records
// should agree on to a few seconds.
func NewStorage(records Records, seal Sealer, now func() time.Time) *Storage {
	return &Storage{
		records: records,
		seal:    seal,
		now:     now,
		turns:   make(map[string]chan struct{}),
		locks:   make(map[string]*lock),
	}
}

// Store seals the value and saves it under the name.
func (s *Storage) Store(ctx context.Context, name string, value []byte) error {
	if err := checkFileName(name); err != nil {
		return err
	}
	if len(value) > maxStored {
		return fmt.Errorf("certs: storing %s: it has %d octets, more than %d", name, len(value), maxStored)
	}
	f := File{Name: name, Value: s.seal.Seal(name, value), Modified: s.now(), Size: int64(len(value))}
	if err := s.records.SaveFile(ctx, f); err != nil {
		return fmt.Errorf("certs: storing %s: %w", name, err)
	}
	return nil
}

// Load returns the value under the name. Where there is none, the error wraps fs.ErrNotExist.
func (s *Storage) Load(ctx context.Context, name string) ([]byte, error) {
	f, err := s.records.LoadFile(ctx, name)
	if errors.Is(err, ErrNoFile) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("certs: loading %s: %w", name, err)
	}
	value, err := s.seal.Open(name, f.Value)
	if err != nil {
		return nil, fmt.Errorf("certs: loading %s: %w", name, err)
	}
	return value, nil
}

// Delete removes what is under the name, and all below it. That there is nothing is no error.
func (s *Storage) Delete(ctx context.Context, name string) error {
	if err := checkFileName(name); err != nil {
		return err
	}
	if err := s.records.DeleteFiles(ctx, name); err != nil {
		return fmt.Errorf("certs: deleting %s: %w", name, err)
	}
	return nil
}

// Exists says whether there is something under the name, or below it. Where the records can't
// be read, it says no: what it is asked for then fails by itself.
func (s *Storage) Exists(ctx context.Context, name string) bool {
	files, err := s.records.ListFiles(ctx, name)
	return err == nil && len(files) > 0
}

// List returns the names of what is in a folder, the folders in it included; if recursive,
// what is in those as well. Without the folder the error wraps fs.ErrNotExist.
func (s *Storage) List(ctx context.Context, folder string, recursive bool) ([]string, error) {
	files, err := s.records.ListFiles(ctx, folder)
	if err == nil && len(files) == 0 && folder != "" {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("certs: listing %s: %w", folder, err)
	}
	var names []string
	for _, f := range files {
		if f.Name == folder {
			continue
		}
		// The name itself and the folders on the way to it, the outermost first.
		var way []string
		for name := f.Name; name != folder && name != "."; name = path.Dir(name) {
			way = append(way, name)
		}
		slices.Reverse(way)
		if !recursive {
			way = way[:1]
		}
		names = append(names, way...)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Stat describes what is under the name, a folder also; without either, the error wraps fs.ErrNotExist.
func (s *Storage) Stat(ctx context.Context, name string) (certmagic.KeyInfo, error) {
	files, err := s.records.ListFiles(ctx, name)
	if err == nil && len(files) == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return certmagic.KeyInfo{}, fmt.Errorf("certs: looking at %s: %w", name, err)
	}
	if f := files[0]; f.Name == name {
		return certmagic.KeyInfo{Key: name, Modified: f.Modified, Size: f.Size, IsTerminal: true}, nil
	}
	return certmagic.KeyInfo{Key: name}, nil
}

// checkFileName keeps to names of which each stands for one file alone.
func checkFileName(name string) error {
	if name == "" || len(name) > maxFileName || !fs.ValidPath(name) || name == "." {
		return fmt.Errorf("certs: %.100q is not the name of a file", name)
	}
	return nil
}

// Reseal seals with the current key what in the records still is sealed with an older one, and
// says how many that were. What doesn't open stays as it is: no key that goes could open it.
func Reseal(ctx context.Context, records Records, seal Sealer) (resealed int, err error) {
	files, err := records.ListFiles(ctx, "")
	if err != nil {
		return 0, fmt.Errorf("certs: listing what is to be sealed anew: %w", err)
	}
	for _, f := range files {
		won, err := resealFile(ctx, records, seal, f.Name)
		if err != nil {
			return resealed, fmt.Errorf("certs: sealing %s anew: %w", f.Name, err)
		}
		if won {
			resealed++
		}
	}
	return resealed, nil
}

func resealFile(ctx context.Context, records Records, seal Sealer, name string) (won bool, err error) {
	for range 10 { // it is lost to those who save it meanwhile, perhaps by the older key
		f, err := records.LoadFile(ctx, name)
		if errors.Is(err, ErrNoFile) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if seal.IsCurrent(f.Value) {
			return false, nil
		}
		plaintext, err := seal.Open(name, f.Value)
		if err != nil {
			return false, nil
		}
		won, err := records.ResealFile(ctx, name, f.Value, seal.Seal(name, plaintext))
		clear(plaintext)
		if won || err != nil {
			return won, err
		}
	}
	return false, errors.New("somebody else changes it all the time; try again")
}

// A lock is one that is held.
type lock struct {
	holder string
	stop   context.CancelFunc // of what prolongs it
	ended  chan struct{}      // closed once that has ended
}

// Lock waits until the lock of that name is ours, or ctx ends.
func (s *Storage) Lock(ctx context.Context, name string) error {
	turn := s.turn(name)
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("certs: waiting for the lock %s: %w", name, ctx.Err())
	}
	for {
		won, err := s.tryLease(ctx, name)
		if won {
			return nil
		}
		if err == nil {
			select {
			case <-time.After(leasePoll):
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		<-turn
		return fmt.Errorf("certs: waiting for the lock %s: %w", name, err)
	}
}

// TryLock is Lock that doesn't wait, and says whether the lock is ours.
func (s *Storage) TryLock(ctx context.Context, name string) (bool, error) {
	turn := s.turn(name)
	select {
	case turn <- struct{}{}:
	default:
		return false, nil
	}
	won, err := s.tryLease(ctx, name)
	if !won {
		<-turn
	}
	if err != nil {
		return false, fmt.Errorf("certs: trying the lock %s: %w", name, err)
	}
	return won, nil
}

// turn returns what has room for one: names are as many as there are domains and CAs.
func (s *Storage) turn(name string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.turns[name] == nil {
		s.turns[name] = make(chan struct{}, 1)
	}
	return s.turns[name]
}

// tryLease asks for the lease, and prolongs it from then on. The caller has its turn.
func (s *Storage) tryLease(ctx context.Context, name string) (won bool, err error) {
	holder := rand.Text()
	won, err = s.prolong(ctx, name, holder)
	if !won || err != nil {
		return false, err
	}
	// Not ctx: certmagic ends its own and unlocks after that.
	held, stop := context.WithCancel(context.WithoutCancel(ctx))
	l := &lock{holder: holder, stop: stop, ended: make(chan struct{})}
	s.mu.Lock()
	s.locks[name] = l
	s.mu.Unlock()
	go func() {
		defer close(l.ended)
		s.keepLease(held, name, holder)
	}()
	return true, nil
}

func (s *Storage) prolong(ctx context.Context, name, holder string) (won bool, err error) {
	now := s.now()
	return s.records.LeaseFile(ctx, name, holder, now, now.Add(leaseLife))
}

// keepLease prolongs it until ctx ends, or another process has it: ours was suspended for long.
// An error is for the next time.
func (s *Storage) keepLease(ctx context.Context, name, holder string) {
	tick := time.NewTicker(leaseStep)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if won, err := s.prolong(ctx, name, holder); !won && err == nil {
			return
		}
	}
}

// Unlock lets others have the lock. Where the records can't be written, they get it
// when the lease has run out.
func (s *Storage) Unlock(ctx context.Context, name string) error {
	s.mu.Lock()
	l := s.locks[name]
	delete(s.locks, name)
	turn := s.turns[name]
	s.mu.Unlock()
	if l == nil {
		return fmt.Errorf("certs: unlocking %s: we don't hold it", name)
	}
	l.stop()
	<-l.ended
	err := s.records.ReleaseFile(ctx, name, l.holder)
	<-turn
	if err != nil {
		return fmt.Errorf("certs: unlocking %s: %w", name, err)
	}
	return nil
}

// String is what certmagic's log calls it.
func (s *Storage) String() string { return "the records" }

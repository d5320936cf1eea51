package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

const (
	resealPage  = 500 // accounts
	resealTries = 10  // of one account that somebody else changes at the same time
)

// AlreadyRotating is why a rotation is refused.
const AlreadyRotating Reason = "already-rotating"

// ErrRotating says that somebody else is about it. It is a *Refusal.
var ErrRotating = refuse(AlreadyRotating, "another rotation of the keys is under way; wait until that has ended")

// A Rotation is what Rotate did.
type Rotation struct {
	Key      string   `json:"key"`      // id of the new current key
	Resealed int      `json:"resealed"` // authenticators that were sealed anew
	Kept     []string `json:"kept"`     // ids of the older keys that are still needed
	Dropped  []string `json:"dropped"`  // ids of those that are gone from the file
}

// Rotate makes a new key, seals all with it that can be sealed anew, and drops the keys on
// which nothing depends any more. It may be killed at any moment: a key stands in the file
// before anything needs it and leaves it after, and the next Rotate does what was left.
//
// Two kinds of older keys stay. Tags can't be made anew without what they are tags of, so
// their key is kept until their grants have ended and their app passwords were used. And the key that
// was the current one until now is kept until the next rotation: another process or a
// login under way may hold it, and write to the store what it has sealed or tagged with it.
func (k *Keys) Rotate(ctx context.Context, records Records) (Rotation, error) {
	unlock, err := lockFolder(k.file.path)
	if err != nil {
		return Rotation{}, err
	}
	defer unlock()
	mark, err := records.Mark(ctx, keyMark)
	if err != nil {
		return Rotation{}, fmt.Errorf("auth: asking the store for the id of its key: %w", err)
	}
	current, previous, err := k.file.add(mark)
	if err != nil {
		return Rotation{}, err
	}
	rotation := Rotation{Key: current.id, Kept: k.file.ring.Load().ids()[1:], Dropped: []string{}}
	if rotation.Resealed, err = k.resealAccounts(ctx, records, current); err != nil {
		return rotation, err
	}
	if err := k.resealTickets(ctx, records, current); err != nil {
		return rotation, err
	}
	if err := records.SetMark(ctx, keyMark, current.id); err != nil {
		return rotation, fmt.Errorf("auth: writing the id of its key to the store: %w", err)
	}
	tagKeys, err := records.TagKeys(ctx)
	if err != nil {
		return rotation, fmt.Errorf("auth: asking the store which keys its tags need: %w", err)
	}
	rotation.Kept, rotation.Dropped, err = k.file.drop(append(tagKeys, current.id, previous.id))
	return rotation, err
}

// add puts a new key in front of those in the file, which may know more than we do.
func (f *keyFile) add(mark string) (current, previous key, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ring, err := readKeys(f.path)
	if err != nil {
		return key{}, key{}, err
	}
	if err := ring.belongs(f.path, mark); err != nil {
		return key{}, key{}, err
	}
	current = newKey()
	for _, taken := ring.find(current.id); taken; _, taken = ring.find(current.id) {
		current = newKey()
	}
	return current, ring.keys[0], f.replace(append([]key{current}, ring.keys...))
}

// drop takes all keys from the file but the needed ones, "" being the oldest.
func (f *keyFile) drop(needed []string) (kept, dropped []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	keys := f.ring.Load().keys
	if slices.Contains(needed, "") {
		needed = append(needed, keys[len(keys)-1].id)
	}
	var left []key
	kept, dropped = []string{}, []string{}
	for i, key := range keys {
		switch {
		case !slices.Contains(needed, key.id):
			dropped = append(dropped, key.id)
			continue
		case i > 0:
			kept = append(kept, key.id)
		}
		left = append(left, key)
	}
	if len(dropped) == 0 {
		return kept, dropped, nil
	}
	if err := f.replace(left); err != nil {
		return f.ring.Load().ids()[1:], []string{}, err
	}
	return kept, dropped, nil
}

// resealAccounts seals every authenticator with the key that wasn't, and returns how many.
func (k *Keys) resealAccounts(ctx context.Context, records Records, current key) (resealed int, err error) {
	after := ""
	for {
		page, err := records.Accounts(ctx, after, resealPage)
		if err != nil {
			return resealed, fmt.Errorf("auth: listing accounts, to seal their authenticators anew: %w", err)
		}
		if len(page) == 0 {
			return resealed, nil
		}
		for _, account := range page {
			won, err := k.resealAccount(ctx, records, account, current)
			if err != nil {
				return resealed, fmt.Errorf("auth: sealing the authenticator of %s anew: %w", account.Name, err)
			}
			if won {
				resealed++
			}
		}
		after = page[len(page)-1].Name
	}
}

func (k *Keys) resealAccount(ctx context.Context, records Records, account Account, current key) (bool, error) {
	for range resealTries {
		t := account.TOTP
		if t == nil || sealedBy(t.Sealed) == current.id {
			return false, nil
		}
		secret, err := k.Open(totpPurpose, account.Name, t.ID, t.Sealed)
		if err != nil {
			return false, fmt.Errorf("%w; if it is lost, run: imapwarden account reset %s, and rotate again", err, account.Name)
		}
		sealed := current.seal(totpPurpose, account.Name, t.ID, secret)
		secret.Wipe()
		won, err := records.Reseal(ctx, t.ID, t.Sealed, sealed)
		if won || err != nil {
			return won, err
		}
		// Its owner or an administrator was quicker.
		account, err = records.Account(ctx, account.Name)
		if errors.Is(err, ErrNoAccount) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, errors.New("somebody else changes it all the time; rotate again")
}

// resealTickets does the same for what TicketKeys keeps. What doesn't open is left to TicketKeys,
// which starts anew.
func (k *Keys) resealTickets(ctx context.Context, marks Marks, current key) error {
	value, err := marks.Mark(ctx, ticketMark)
	if err != nil {
		return fmt.Errorf("auth: reading the TLS session ticket keys: %w", err)
	}
	sealed, err := base64.StdEncoding.DecodeString(value)
	if err != nil || sealedBy(sealed) == current.id {
		return nil
	}
	plaintext, err := k.Open(ticketPurpose, "", ticketMark, sealed)
	if err != nil {
		return nil
	}
	defer plaintext.Wipe()
	sealed = current.seal(ticketPurpose, "", ticketMark, plaintext)
	if err := marks.SetMark(ctx, ticketMark, base64.StdEncoding.EncodeToString(sealed)); err != nil {
		return fmt.Errorf("auth: sealing the TLS session ticket keys anew: %w", err)
	}
	return nil
}

// lockFolder keeps other processes from rotating: the file itself is replaced, and a lock
// on it with it. The lock ends with the process.
func lockFolder(path string) (unlock func(), err error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("auth: looking for the key file, to rotate it: %w", err)
	}
	folder, err := os.Open(filepath.Dir(target))
	if err != nil {
		return nil, fmt.Errorf("auth: locking the folder of key file %s: %w", path, err)
	}
	switch err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		folder.Close()
		return nil, ErrRotating
	case err != nil:
		folder.Close()
		return nil, fmt.Errorf("auth: locking the folder of key file %s: %w", path, err)
	}
	return func() { folder.Close() }, nil
}

// replace writes the keys to the file and, once they are on the disk, lets them be used.
func (f *keyFile) replace(keys []key) error {
	text := keyText(keys)
	if len(text) > maxKeyFile {
		return fmt.Errorf("auth: key file %s would hold %d keys, which is too many: "+
			"something keeps rotations from ending; see what the last ones said", f.path, len(keys))
	}
	if err := replaceFile(f.disk, f.path, text); err != nil {
		return fmt.Errorf("auth: writing key file %s anew%s: %w", f.path, writeAdvice(err), err)
	}
	ring, err := readKeys(f.path)
	if err != nil {
		return err
	}
	f.ring.Store(ring)
	return nil
}

// writeAdvice says what can be done where a file can't be written anew.
func writeAdvice(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ": its disk is full: make room, and rotate again"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return ": the user that imapwarden runs as must be able to write its folder"
	}
	return ""
}

// A disk is where the key file is replaced.
type disk interface {
	// create makes a file that wasn't there, with mode 0600 and, where we may give files away, the owner of like.
	create(path string, like fs.FileInfo) (*os.File, error)
	// write returns when the text is on the disk.
	write(file *os.File, text string) error
	rename(from, to string) error
	// syncFolder returns when a rename or link in it is on the disk.
	syncFolder(path string) error
}

// replaceFile leaves the old file or the new one, whole, whenever it is ended. A symbolic link
// keeps pointing to it.
func replaceFile(d disk, path, text string) error {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	old, err := os.Stat(target)
	if err != nil {
		return err
	}
	temp := target + ".new"
	// One may be there from a rotation that was killed; lockFolder keeps others away.
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := d.create(temp, old)
	if err != nil {
		return err
	}
	defer os.Remove(temp) // where it isn't renamed
	err = d.write(file, text)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := d.rename(temp, target); err != nil {
		return err
	}
	return d.syncFolder(filepath.Dir(target))
}

type osDisk struct{}

func (osDisk) create(path string, like fs.FileInfo) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	// Only root may; anybody else who could read the old file owned it.
	if owner, ok := like.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := file.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return nil, errors.Join(err, file.Close(), os.Remove(path))
		}
	}
	return file, nil
}

func (osDisk) write(file *os.File, text string) error {
	_, err := file.WriteString(text)
	return errors.Join(err, file.Sync())
}

func (osDisk) rename(from, to string) error { return os.Rename(from, to) }

func (osDisk) syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

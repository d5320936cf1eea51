package auth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A vaultRoom is a store with secrets of every kind, beside its key file.
type vaultRoom struct {
	path    string
	records *fakeRecords
	keys    *Keys
}

// newRoom seals the authenticators of that many accounts.
func newRoom(t *testing.T, accounts int) *vaultRoom {
	t.Helper()
	r := &vaultRoom{path: filepath.Join(t.TempDir(), "master.key"), records: newFake()}
	r.open(t)
	for n := range accounts {
		r.enroll(fmt.Sprintf("user%04d", n), r.keys)
	}
	if _, err := TicketKeys(t.Context(), r.records, r.keys, time.Now()); err != nil {
		t.Fatal(err)
	}
	return r
}

// open is a restart of the server.
func (r *vaultRoom) open(t *testing.T) {
	t.Helper()
	keys, err := OpenKeys(t.Context(), r.path, r.records)
	if err != nil {
		t.Fatal(err)
	}
	r.keys = keys
}

func (r *vaultRoom) enroll(name string, keys *Keys) {
	r.records.accounts[name] = Account{Name: name, TOTP: &TOTP{
		ID: "totp of " + name, Sealed: keys.Seal(totpPurpose, name, "totp of "+name, []byte("secret of "+name)),
	}}
}

func (r *vaultRoom) grant(id string, keys *Keys) {
	tag, keyID := keys.Tag(passwordPurpose, []byte(id))
	r.records.grants[id] = Grant{ID: id, Account: "user0000", PasswordTag: tag, KeyID: keyID}
}

// intact checks that every secret opens, and every tag can be made, with these keys.
func (r *vaultRoom) intact(t *testing.T, keys *Keys) {
	t.Helper()
	for name, a := range r.records.accounts {
		secret, err := keys.Open(totpPurpose, name, a.TOTP.ID, a.TOTP.Sealed)
		if err != nil || string(secret) != "secret of "+name {
			t.Errorf("%s: %v", name, err)
		}
	}
	for id, g := range r.records.grants {
		if !matches(g.PasswordTag, keys.TagWith(g.KeyID, passwordPurpose, []byte(id))) {
			t.Errorf("grant %s of key %q is lost", id, g.KeyID)
		}
	}
	if len(openTicketKeys(keys, r.records.marks[ticketMark])) != 1 {
		t.Error("the ticket keys are lost")
	}
}

// rotate does it, and then looks at all that it promises.
func (r *vaultRoom) rotate(t *testing.T) Rotation {
	t.Helper()
	rotation, err := r.keys.Rotate(t.Context(), r.records)
	if err != nil {
		t.Fatal(err)
	}
	r.intact(t, r.keys)
	r.open(t)
	r.intact(t, r.keys)
	if ids := r.keys.IDs(); ids[0] != rotation.Key || !slices.Equal(ids[1:], rotation.Kept) || r.keys.ID() != rotation.Key {
		t.Errorf("the file holds %v, the rotation says %+v", ids, rotation)
	}
	if r.records.marks[keyMark] != rotation.Key {
		t.Errorf("mark %s, want %s", r.records.marks[keyMark], rotation.Key)
	}
	for _, a := range r.records.accounts {
		if id := sealedBy(a.TOTP.Sealed); id != rotation.Key {
			t.Errorf("%s is sealed with %s, want %s", a.Name, id, rotation.Key)
		}
	}
	if files, _ := os.ReadDir(filepath.Dir(r.path)); len(files) != 1 {
		t.Errorf("%d files left, want the key file alone", len(files))
	}
	return rotation
}

func TestRotateKeepsAKeyAsLongAsItIsNeeded(t *testing.T) {
	r := newRoom(t, 2*resealPage+3)
	first := r.keys.ID()
	r.grant("of the first", r.keys)
	old := r.records.grants["of the first"]
	old.ID, old.KeyID = "from before there could be two", ""
	old.PasswordTag = r.keys.TagWith("", passwordPurpose, []byte(old.ID))
	r.records.grants[old.ID] = old

	second := r.rotate(t)
	if second.Resealed != 2*resealPage+3 || !slices.Equal(second.Kept, []string{first}) || len(second.Dropped) != 0 {
		t.Errorf("second: %+v", second)
	}
	r.grant("of the second", r.keys)
	third := r.rotate(t)
	if !slices.Equal(third.Kept, []string{second.Key, first}) || len(third.Dropped) != 0 {
		t.Errorf("third: %+v", third)
	}
	delete(r.records.grants, "of the first") // "" still stands for the oldest
	delete(r.records.grants, "of the second")
	fourth := r.rotate(t)
	if !slices.Equal(fourth.Kept, []string{third.Key, first}) || !slices.Equal(fourth.Dropped, []string{second.Key}) {
		t.Errorf("fourth: %+v", fourth)
	}
	delete(r.records.grants, old.ID)
	if fifth := r.rotate(t); !slices.Equal(fifth.Kept, []string{fourth.Key}) || !slices.Equal(fifth.Dropped, []string{third.Key, first}) {
		t.Errorf("fifth: %+v", fifth)
	}
}

func TestRotateKeepsOwnerModeAndLink(t *testing.T) {
	r := newRoom(t, 1)
	link := filepath.Join(t.TempDir(), "link.key")
	if err := os.Symlink(r.path, link); err != nil {
		t.Fatal(err)
	}
	owner := os.Geteuid()
	if owner == 0 {
		owner = 1234
		if err := os.Chown(r.path, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(r.path+".new", []byte("of a rotation that was killed"), 0o644); err != nil {
		t.Fatal(err)
	}
	keys, err := LoadKeys(link)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Rotate(t.Context(), r.records); err != nil {
		t.Fatal(err)
	}
	r.rotate(t) // finds no second file
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
	info, err := os.Stat(link)
	if err != nil {
		t.Fatal(err)
	}
	if sys := info.Sys().(*syscall.Stat_t); int(sys.Uid) != owner || info.Mode() != 0o600 {
		t.Errorf("owner %d, mode %v; want %d, 0600", sys.Uid, info.Mode(), owner)
	}
}

// A breaker lets the n-th step from now fail.
type breaker struct{ left int }

var errBroken = errors.New("broken")

func (b *breaker) step() error {
	b.left--
	if b.left == -1 {
		return errBroken
	}
	return nil
}

// brokenRecords fails before, or after, it has done what it was asked.
type brokenRecords struct {
	*fakeRecords
	*breaker
}

func (r brokenRecords) Accounts(ctx context.Context, after string, limit int) ([]Account, error) {
	if err := r.step(); err != nil {
		return nil, err
	}
	return r.fakeRecords.Accounts(ctx, after, min(limit, 2))
}

func (r brokenRecords) Reseal(ctx context.Context, totp string, old, sealed []byte) (bool, error) {
	if err := r.step(); err != nil {
		return false, err
	}
	won, err := r.fakeRecords.Reseal(ctx, totp, old, sealed)
	return won, errors.Join(err, r.step())
}

func (r brokenRecords) TagKeys(ctx context.Context) ([]string, error) {
	if err := r.step(); err != nil {
		return nil, err
	}
	return r.fakeRecords.TagKeys(ctx)
}

func (r brokenRecords) Mark(ctx context.Context, name string) (string, error) {
	if err := r.step(); err != nil {
		return "", err
	}
	return r.fakeRecords.Mark(ctx, name)
}

func (r brokenRecords) SetMark(ctx context.Context, name, value string) error {
	if err := r.step(); err != nil {
		return err
	}
	return errors.Join(r.fakeRecords.SetMark(ctx, name, value), r.step())
}

type brokenDisk struct {
	osDisk
	*breaker
}

func (d brokenDisk) create(path string, like fs.FileInfo) (*os.File, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	return d.osDisk.create(path, like)
}

func (d brokenDisk) write(file *os.File, text string) error {
	if err := d.step(); err != nil {
		d.osDisk.write(file, text[:len(text)/2]) // the disk is full
		return err
	}
	return d.osDisk.write(file, text)
}

func (d brokenDisk) rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.osDisk.rename(from, to)
}

func (d brokenDisk) syncFolder(path string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.osDisk.syncFolder(path)
}

func TestRotateMayFailAnywhere(t *testing.T) {
	steps := 0
	for failed := true; failed; steps++ {
		t.Run(fmt.Sprint("step ", steps), func(t *testing.T) {
			r := newRoom(t, 3)
			for range 2 {
				r.rotate(t) // so that there is a key to be dropped
			}
			r.grant("a", r.keys)
			b := &breaker{left: steps}
			r.keys.file.disk = brokenDisk{breaker: b}
			_, err := r.keys.Rotate(t.Context(), brokenRecords{r.records, b})
			if failed = err != nil; failed && !errors.Is(err, errBroken) {
				t.Errorf("failed for another reason: %v", err)
			}
			r.intact(t, r.keys)
			r.enroll("since then", r.keys) // while the server runs on
			r.grant("since then", r.keys)
			running := r.keys
			r.open(t)
			r.intact(t, r.keys)
			r.rotate(t)
			r.intact(t, running)
		})
	}
	if steps < 20 {
		t.Errorf("only %d steps could fail", steps)
	}
}

// racingRecords changes an authenticator just before it is sealed anew.
type racingRecords struct {
	*fakeRecords
	race func(totp string)
}

func (r racingRecords) Reseal(ctx context.Context, totp string, old, sealed []byte) (bool, error) {
	r.race(totp)
	return r.fakeRecords.Reseal(ctx, totp, old, sealed)
}

func TestRotateReadsAgainAfterALostRace(t *testing.T) {
	tests := []struct {
		name     string
		race     func(r *vaultRoom, stale *Keys)
		resealed int
		fails    string
	}{
		{"enrolled anew by a process that knows the old key", func(r *vaultRoom, stale *Keys) {
			if a := r.records.accounts["user0000"]; a.TOTP.ID != "another" {
				a.TOTP = &TOTP{ID: "another", Sealed: stale.Seal(totpPurpose, a.Name, "another", []byte("secret of user0000"))}
				r.records.accounts["user0000"] = a
			}
		}, 1, ""},
		{"removed", func(r *vaultRoom, _ *Keys) { delete(r.records.accounts, "user0000") }, 0, ""},
		{"again and again", func(r *vaultRoom, stale *Keys) { r.enroll("user0000", stale) }, 0, "user0000"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRoom(t, 1)
			stale := newKeys("", r.keys.file.ring.Load())
			records := racingRecords{r.records, func(string) { test.race(r, stale) }}
			rotation, err := r.keys.Rotate(t.Context(), records)
			if rotation.Resealed != test.resealed || (err != nil) != (test.fails != "") {
				t.Errorf("%+v, %v", rotation, err)
			}
			if err != nil && !strings.Contains(err.Error(), test.fails) {
				t.Errorf("%v doesn't say %q", err, test.fails)
			}
			r.intact(t, r.keys)
			r.rotate(t)
		})
	}
}

func TestRotateNamesTheAccountThatDoesNotOpen(t *testing.T) {
	r := newRoom(t, 2)
	r.records.accounts["user0001"].TOTP.Sealed[40] ^= 1
	_, err := r.keys.Rotate(t.Context(), r.records)
	if err == nil || !strings.Contains(err.Error(), "imapwarden account reset user0001") {
		t.Errorf("%v doesn't say what to do", err)
	}
}

func TestRotateIsDoneByOneAtATime(t *testing.T) {
	r := newRoom(t, 1)
	unlock, err := lockFolder(r.path)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(r.path)
	if _, err := r.keys.Rotate(t.Context(), r.records); !errors.Is(err, ErrRotating) {
		t.Errorf("got %v, want ErrRotating", err)
	}
	if after, _ := os.ReadFile(r.path); string(after) != string(before) {
		t.Error("the file was changed")
	}
	unlock()
	r.rotate(t)
}

func TestRotateRefusesAForeignFile(t *testing.T) {
	r, other := newRoom(t, 1), newRoom(t, 0)
	text, err := os.ReadFile(other.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.keys.Rotate(t.Context(), r.records); err == nil || !strings.Contains(err.Error(), r.keys.ID()) {
		t.Errorf("%v doesn't name the key that is missing", err)
	}
	if after, _ := os.ReadFile(r.path); string(after) != string(text) {
		t.Error("the file was changed")
	}
	if err := r.keys.Reload(); err == nil || !strings.Contains(err.Error(), r.path) {
		t.Errorf("Reload: %v", err)
	}
	r.intact(t, r.keys)
}

func TestOpenKeysRefusesABackupFromBeforeARotation(t *testing.T) {
	r := newRoom(t, 1)
	first := r.keys.ID()
	backup, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	second := r.rotate(t).Key
	if err := os.WriteFile(r.path, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = OpenKeys(t.Context(), r.path, r.records)
	for _, part := range []string{r.path, first, second, "before the keys were rotated", "newest backup"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v doesn't say %q", err, part)
		}
	}
}

func TestKeysFollowAnotherProcess(t *testing.T) {
	r := newRoom(t, 1)
	synctest.Test(t, func(t *testing.T) {
		server := r.keys
		server.Tag("p") // looks
		r.open(t)       // the other process
		second := r.rotate(t)
		if server.ID() == second.Key {
			t.Fatal("it knew before it could")
		}
		r.intact(t, server) // meets the unknown key and looks at once
		if server.ID() != second.Key {
			t.Error("the new key isn't the current one")
		}

		third := r.rotate(t)
		r.grant("of the third", r.keys)
		if server.TagWith(third.Key, "p") != nil {
			t.Error("it looked twice in one second")
		}
		time.Sleep(lookEvery)
		r.intact(t, server)

		fourth := r.rotate(t)
		time.Sleep(lookEvery)
		if _, id := server.Tag("p"); id != fourth.Key {
			t.Errorf("tags with %s, want %s", id, fourth.Key)
		}

		r.rotate(t)
		r.rotate(t) // the file now shares no key but for the grant's
		delete(r.records.grants, "of the third")
		last := r.rotate(t)
		if err := server.Reload(); err == nil {
			t.Error("took a file with which it shares no key")
		}
		time.Sleep(lookEvery)
		r.intact(t, server)
		if server.ID() != last.Key {
			t.Error("refused a file that holds the key of what it was to open")
		}
	})
}

func TestReloadKeepsTheKeysWhereTheFileIsUnreadable(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"gone":  os.Remove,
		"empty": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"shared": func(path string) error {
			return errors.Join(os.Chtimes(path, time.Time{}, time.Unix(1, 0)), os.Chmod(path, 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t, 1)
			if err := r.keys.Reload(); err != nil {
				t.Fatal(err)
			}
			if err := spoil(r.path); err != nil {
				t.Fatal(err)
			}
			if err := r.keys.Reload(); err == nil {
				t.Error("no error")
			}
			r.intact(t, r.keys)
		})
	}
}

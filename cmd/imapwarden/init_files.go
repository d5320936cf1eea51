package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"imapwarden/auth"
)

// A draft is a file that is to be written.
type draft struct {
	path string
	text string
	mode fs.FileMode
	gid  int // -1: as it comes
}

// A placement puts files where they belong: all of them, or none. What it did it can undo,
// until it is finished.
type placement struct {
	replace bool           // files of ours that are there already
	service *serviceUser   // to whom the state belongs; nil: to whoever runs this
	undo    []func() error // the last one first
	spare   []string       // the replaced files, until all is done
	Files   []placed
}

// A placed file is what init tells of it; as JSON its names are an interface.
type placed struct {
	Path string `json:"path"`
	Did  string `json:"did"` // "made", "replaced" or "kept"
}

// A serviceUser is the one that the service runs as.
type serviceUser struct{ uid, gid int }

// folder makes a folder and those above it, where they aren't there.
func (p *placement) folder(path string, mode fs.FileMode) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if above := filepath.Dir(path); above != path {
		if err := p.folder(above, 0o755); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, mode); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	p.undo = append(p.undo, func() error { return os.Remove(path) })
	return os.Chmod(path, mode) // whatever the umask is
}

// state makes the folder of the store and the key in it, as the first start would. A key that
// is there stays, whatever else is replaced: what it sealed, no other opens. Both belong to the
// service, where we may give them away.
func (p *placement) state(folder, key, store string) error {
	_, err := os.Stat(folder)
	made := errors.Is(err, fs.ErrNotExist)
	if err := p.folder(folder, 0o700); err != nil {
		return err
	}
	if made && p.service != nil {
		if err := os.Lchown(folder, p.service.uid, p.service.gid); err != nil {
			return err
		}
	}
	switch _, err := auth.LoadKeys(key); {
	case err == nil:
		p.Files = append(p.Files, placed{key, "kept"})
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if _, err := os.Stat(store); err == nil {
		return fmt.Errorf("there is a store at %s without its key %s: restore the key from its backup, for a new one doesn't open it; "+
			"or move the store away, to begin anew", store, key)
	}
	if _, err := auth.CreateKeys(key); err != nil {
		return err
	}
	p.undo = append(p.undo, func() error { return os.Remove(key) })
	p.Files = append(p.Files, placed{key, "made"})
	return p.giveAway(key, folder)
}

// giveAway makes a file of root's belong to whom its folder belongs: a server that runs as
// somebody else couldn't read it.
func (p *placement) giveAway(path, folder string) error {
	info, err := os.Stat(folder)
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	return os.Lchown(path, int(owner.Uid), int(owner.Gid))
}

// file puts a whole file into its place at once.
func (p *placement) file(d draft) error {
	fresh, err := d.write()
	if err != nil {
		return err
	}
	defer os.Remove(fresh)
	did := "made"
	err = os.Link(fresh, d.path) // unlike a rename, never overwrites
	if errors.Is(err, fs.ErrExist) && p.replace {
		did, err = "replaced", p.swap(fresh, d.path)
	} else if err == nil {
		p.undo = append(p.undo, func() error { return os.Remove(d.path) })
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", d.path, err)
	}
	p.Files = append(p.Files, placed{d.path, did})
	return nil
}

// write leaves the draft on the disk under another name, which it returns.
func (d draft) write() (string, error) {
	f, err := os.CreateTemp(filepath.Dir(d.path), ".init-*") // mode 0600
	if err != nil {
		return "", fmt.Errorf("writing %s: %w", d.path, err)
	}
	_, err = f.WriteString(d.text)
	if d.gid >= 0 {
		err = errors.Join(err, f.Chown(-1, d.gid))
	}
	if err := errors.Join(err, f.Chmod(d.mode), f.Sync(), f.Close()); err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("writing %s: %w", d.path, err)
	}
	return f.Name(), nil
}

// swap replaces a file, and keeps it beside until all is done.
func (p *placement) swap(fresh, path string) error {
	old := fresh + ".old"
	if err := os.Link(path, old); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		os.Remove(old)
		return err
	}
	p.spare = append(p.spare, old)
	p.undo = append(p.undo, func() error { return os.Rename(old, path) })
	return nil
}

// finish keeps what was done, and returns an error where that isn't sure.
func (p *placement) finish() error {
	for _, folder := range p.folders() {
		if err := syncFolder(folder); err != nil {
			return err
		}
	}
	for _, old := range p.spare {
		os.Remove(old) // in vain at worst: it is a copy that nothing reads
	}
	p.undo = nil
	return nil
}

func (p *placement) folders() []string {
	var all []string
	for _, f := range p.Files {
		all = append(all, filepath.Dir(f.Path))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// rollBack undoes what was done and isn't finished.
func (p *placement) rollBack() error {
	var failed error
	for _, back := range slices.Backward(p.undo) {
		if err := back(); err != nil {
			failed = errors.Join(failed, fmt.Errorf("and taking back what was written: %w", err))
		}
	}
	p.undo = nil
	return failed
}

// existing returns those of the files that are there already.
func existing(drafts ...string) []string {
	return slices.DeleteFunc(drafts, func(path string) bool {
		_, err := os.Lstat(path)
		return errors.Is(err, fs.ErrNotExist)
	})
}

// serviceGroup is the group that may read the configuration; -1: there is none.
func (u *serviceUser) group() int {
	if u == nil {
		return -1
	}
	return u.gid
}

// owns says whether a file or folder belongs to the user.
func (u *serviceUser) owns(path string) bool {
	info, err := os.Stat(path)
	return err == nil && int(info.Sys().(*syscall.Stat_t).Uid) == u.uid
}

func readIDs(uid, gid string) (*serviceUser, error) {
	u, err := strconv.Atoi(uid)
	g, err2 := strconv.Atoi(gid)
	return &serviceUser{u, g}, errors.Join(err, err2)
}

package auth

import (
	"context"
	"maps"
	"sync"
)

// uses knows the last uses of app passwords that the store doesn't know yet. It learns them at
// each write, not at each session.
type uses struct {
	mu        sync.Mutex
	unwritten map[string]Use // by the app password's ID
}

func (u *uses) add(id string, use Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.unwritten == nil {
		u.unwritten = make(map[string]Use)
	}
	u.unwritten[id] = use
}

// last returns the last use that we know of.
func (u *uses) last(p AppPassword) Use {
	u.mu.Lock()
	defer u.mu.Unlock()
	if use, ok := u.unwritten[p.ID]; ok {
		return use
	}
	return p.LastUse
}

// write tells the store all that it doesn't know. What it could not be told stays for the
// next time.
func (u *uses) write(ctx context.Context, store AppPasswords) error {
	u.mu.Lock()
	told := maps.Clone(u.unwritten)
	u.mu.Unlock()
	if len(told) == 0 {
		return nil
	}
	if err := store.UseAppPasswords(ctx, told); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.unwritten, func(id string, use Use) bool { return use == told[id] })
	return nil
}

package auth

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// fakeRecords keeps all in memory, counts what the tests ask about, and fails on demand.
type fakeRecords struct {
	mu       sync.Mutex
	accounts map[string]Account
	grants   map[string]Grant
	marks    map[string]string
	spent    int  // steps that were won
	down     bool // every call fails
}

var errDown = errors.New("fake: down")

func newFake() *fakeRecords {
	return &fakeRecords{accounts: map[string]Account{}, grants: map[string]Grant{}, marks: map[string]string{}}
}

func (f *fakeRecords) lock() (func(), error) {
	f.mu.Lock()
	if f.down {
		return f.mu.Unlock, errDown
	}
	return f.mu.Unlock, nil
}

func (f *fakeRecords) setDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

// count returns how many grants there are, and lastUsed when one was used, beside a
// running Authenticator.Run.
func (f *fakeRecords) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.grants)
}

func (f *fakeRecords) lastUsed(id string) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.grants[id].LastUsed
}

func (f *fakeRecords) Account(_ context.Context, name string) (Account, error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return Account{}, err
	}
	a, ok := f.accounts[name]
	if !ok {
		return Account{}, ErrNoAccount
	}
	return clone(a), nil
}

func (f *fakeRecords) Accounts(_ context.Context, after string, limit int) ([]Account, error) {
	unlock, err := f.lock()
	defer unlock()
	var list []Account
	for _, name := range slices.Sorted(maps.Keys(f.accounts)) {
		if name > after && len(list) < limit {
			list = append(list, clone(f.accounts[name]))
		}
	}
	return list, err
}

func (f *fakeRecords) PutAccount(_ context.Context, a Account) error {
	unlock, err := f.lock()
	defer unlock()
	if err == nil {
		f.accounts[a.Name] = clone(a)
	}
	return err
}

func (f *fakeRecords) RemoveAccount(_ context.Context, name string) error {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return err
	}
	if _, ok := f.accounts[name]; !ok {
		return ErrNoAccount
	}
	delete(f.accounts, name)
	maps.DeleteFunc(f.grants, func(_ string, g Grant) bool { return g.Account == name })
	return nil
}

func (f *fakeRecords) SpendStep(_ context.Context, totp string, step int64, g *Grant) (bool, error) {
	return f.spend(totp, step, func(*TOTP) {
		if g != nil {
			f.grants[g.ID] = *g
		}
	})
}

func (f *fakeRecords) Confirm(_ context.Context, totp string, step int64, at time.Time) (bool, error) {
	return f.spend(totp, step, func(t *TOTP) { t.Confirmed = at })
}

func (f *fakeRecords) spend(totp string, step int64, then func(*TOTP)) (bool, error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return false, err
	}
	for _, a := range f.accounts {
		if a.TOTP != nil && a.TOTP.ID == totp && a.TOTP.LastStep < step {
			a.TOTP.LastStep = step
			then(a.TOTP)
			f.spent++
			return true, nil
		}
	}
	return false, nil
}

func (f *fakeRecords) Grants(_ context.Context, account string) ([]Grant, error) {
	unlock, err := f.lock()
	defer unlock()
	var list []Grant
	for _, g := range f.grants {
		if g.Account == account {
			list = append(list, g)
		}
	}
	slices.SortFunc(list, func(a, b Grant) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return list, err
}

func (f *fakeRecords) PutGrant(_ context.Context, g Grant) error {
	unlock, err := f.lock()
	defer unlock()
	if err == nil {
		f.grants[g.ID] = g
	}
	return err
}

func (f *fakeRecords) TouchGrants(_ context.Context, lastUsed map[string]time.Time) error {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return err
	}
	for id, t := range lastUsed {
		if g, ok := f.grants[id]; ok && t.After(g.LastUsed) {
			g.LastUsed = t
			f.grants[id] = g
		}
	}
	return nil
}

func (f *fakeRecords) RemoveGrants(_ context.Context, account string, ids ...string) error {
	unlock, err := f.lock()
	defer unlock()
	if err == nil {
		maps.DeleteFunc(f.grants, func(id string, g Grant) bool {
			return g.Account == account && (len(ids) == 0 || slices.Contains(ids, id))
		})
	}
	return err
}

func (f *fakeRecords) PurgeGrants(_ context.Context, before time.Time) error {
	unlock, err := f.lock()
	defer unlock()
	if err == nil {
		maps.DeleteFunc(f.grants, func(_ string, g Grant) bool { return g.Expires.Before(before) })
	}
	return err
}

func (f *fakeRecords) Mark(_ context.Context, name string) (string, error) {
	unlock, err := f.lock()
	defer unlock()
	return f.marks[name], err
}

func (f *fakeRecords) SetMark(_ context.Context, name, value string) error {
	unlock, err := f.lock()
	defer unlock()
	if err == nil {
		f.marks[name] = value
	}
	return err
}

func clone(a Account) Account {
	if a.TOTP != nil {
		t := *a.TOTP
		a.TOTP = &t
	}
	return a
}

package auth

import (
	"bytes"
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
	recovery map[string]map[string]time.Time // by authenticator and tag
	grants   map[string]Grant
	issued   map[string]AppPassword
	marks    map[string]string
	spent    int  // steps that were won
	down     bool // every call fails
}

var errDown = errors.New("fake: down")

func newFake() *fakeRecords {
	return &fakeRecords{
		accounts: map[string]Account{}, recovery: map[string]map[string]time.Time{},
		grants: map[string]Grant{}, issued: map[string]AppPassword{}, marks: map[string]string{},
	}
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

func (f *fakeRecords) SignIn(ctx context.Context, name string) (s SignIn, err error) {
	if s.Account, err = f.Account(ctx, name); err != nil && !errors.Is(err, ErrNoAccount) {
		return s, err
	}
	if s.Grants, err = f.Grants(ctx, name); err != nil {
		return s, err
	}
	list, err := f.AppPasswords(ctx, name)
	s.Unsealed = slices.ContainsFunc(list, func(p AppPassword) bool { return p.Revoked.IsZero() && !p.ready() })
	return s, err
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

func (f *fakeRecords) PutAccount(_ context.Context, a Account, recovery ...[]byte) error {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return err
	}
	if old := f.accounts[a.Name].TOTP; old != nil {
		delete(f.recovery, old.ID)
	}
	f.accounts[a.Name] = clone(a)
	if a.TOTP != nil {
		f.setRecovery(a.TOTP.ID, recovery)
	}
	return nil
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
	if t := f.accounts[name].TOTP; t != nil {
		delete(f.recovery, t.ID)
	}
	delete(f.accounts, name)
	maps.DeleteFunc(f.issued, func(_ string, p AppPassword) bool { return p.Account == name })
	maps.DeleteFunc(f.grants, func(_ string, g Grant) bool { return g.Account == name })
	return nil
}

func (f *fakeRecords) SpendStep(_ context.Context, totp string, step int64, grants ...Grant) (bool, error) {
	return f.spend(totp, step, func(*TOTP) { f.put(grants) })
}

func (f *fakeRecords) put(grants []Grant) {
	for _, g := range grants {
		f.grants[g.ID] = g
	}
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
	t := f.authenticator(totp)
	if t == nil || t.LastStep >= step {
		return false, nil
	}
	t.LastStep = step
	then(t)
	f.spent++
	return true, nil
}

func (f *fakeRecords) setRecovery(totp string, tags [][]byte) {
	f.recovery[totp] = map[string]time.Time{}
	for _, tag := range tags {
		f.recovery[totp][string(tag)] = time.Time{}
	}
}

func (f *fakeRecords) RecoveryCodes(_ context.Context, totp string) ([]RecoveryCode, error) {
	unlock, err := f.lock()
	defer unlock()
	var list []RecoveryCode
	for tag, used := range f.recovery[totp] {
		list = append(list, RecoveryCode{[]byte(tag), used})
	}
	return list, err
}

func (f *fakeRecords) SpendRecovery(_ context.Context, totp string, tag []byte, at time.Time, grants ...Grant) (left int, won bool, err error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return 0, false, err
	}
	if used, ok := f.recovery[totp][string(tag)]; ok && used.IsZero() {
		f.recovery[totp][string(tag)], won = at, true
		f.put(grants)
	}
	for _, used := range f.recovery[totp] {
		if used.IsZero() {
			left++
		}
	}
	return left, won, nil
}

func (f *fakeRecords) PutRecovery(_ context.Context, totp string, tags [][]byte) (bool, error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil || f.authenticator(totp) == nil {
		return false, err
	}
	f.setRecovery(totp, tags)
	return true, nil
}

func (f *fakeRecords) Reseal(_ context.Context, totp string, old, sealed []byte) (bool, error) {
	unlock, err := f.lock()
	defer unlock()
	t := f.authenticator(totp)
	if err != nil || t == nil || !bytes.Equal(t.Sealed, old) {
		return false, err
	}
	t.Sealed = sealed
	return true, nil
}

func (f *fakeRecords) authenticator(id string) *TOTP {
	for _, a := range f.accounts {
		if a.TOTP != nil && a.TOTP.ID == id {
			return a.TOTP
		}
	}
	return nil
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

func (f *fakeRecords) RemoveGrants(_ context.Context, account string, ids ...string) (removed []string, err error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return nil, err
	}
	for id, g := range f.grants {
		if g.Account == account && (len(ids) == 0 || slices.Contains(ids, id)) {
			delete(f.grants, id)
			removed = append(removed, id)
		}
	}
	return removed, nil
}

func (f *fakeRecords) PurgeGrants(_ context.Context, before time.Time) error {
	unlock, err := f.lock()
	defer unlock()
	if err == nil {
		maps.DeleteFunc(f.grants, func(_ string, g Grant) bool { return g.Expires.Before(before) })
	}
	return err
}

func (f *fakeRecords) AppPassword(_ context.Context, tag []byte) (AppPassword, error) {
	unlock, err := f.lock()
	defer unlock()
	if err != nil {
		return AppPassword{}, err
	}
	for _, p := range f.issued {
		if bytes.Equal(p.Tag, tag) {
			return p, nil
		}
	}
	return AppPassword{}, ErrNoAppPassword
}

func (f *fakeRecords) AppPasswords(_ context.Context, account string) ([]AppPassword, error) {
	unlock, err := f.lock()
	defer unlock()
	var list []AppPassword
	for _, p := range f.issued {
		if p.Account == account {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b AppPassword) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return list, err
}

func (f *fakeRecords) AddAppPassword(_ context.Context, p AppPassword, most int) (bool, error) {
	unlock, err := f.lock()
	defer unlock()
	for _, other := range f.issued {
		if other.Account == p.Account && other.Revoked.IsZero() && (other.Expires.IsZero() || other.Expires.After(p.Created)) {
			most--
		}
	}
	if err != nil || most <= 0 {
		return false, err
	}
	if _, ok := f.accounts[p.Account]; !ok {
		f.accounts[p.Account] = Account{Name: p.Account, Created: p.Created}
	}
	f.issued[p.ID] = p
	return true, nil
}

func (f *fakeRecords) RevokeAppPassword(_ context.Context, account, id string, at time.Time) (known bool, err error) {
	err = f.change(id, func(p *AppPassword) {
		if p.Account == account && p.Revoked.IsZero() {
			p.Revoked, p.Public, p.Sealed, known = at, nil, nil, true
		}
	})
	return known, err
}

func (f *fakeRecords) SealAppPasswords(_ context.Context, account string, sealed map[string][]byte) error {
	var errs []error
	for id, b := range sealed {
		errs = append(errs, f.change(id, func(p *AppPassword) {
			if p.Account == account && p.Revoked.IsZero() {
				p.Sealed, p.Stale = b, false
			}
		}))
	}
	return errors.Join(errs...)
}

func (f *fakeRecords) StaleAppPassword(_ context.Context, id string, tried []byte) error {
	return f.change(id, func(p *AppPassword) { p.Stale = p.Stale || bytes.Equal(p.Sealed, tried) })
}

func (f *fakeRecords) RetagAppPassword(_ context.Context, id string, tag, publicTag []byte, keyID string) error {
	return f.change(id, func(p *AppPassword) { p.Tag, p.PublicTag, p.KeyID = tag, publicTag, keyID })
}

func (f *fakeRecords) UseAppPasswords(_ context.Context, uses map[string]Use) error {
	var errs []error
	for id, use := range uses {
		errs = append(errs, f.change(id, func(p *AppPassword) {
			if use.Time.After(p.LastUse.Time) {
				p.LastUse = use
			}
		}))
	}
	return errors.Join(errs...)
}

func (f *fakeRecords) change(id string, change func(*AppPassword)) error {
	unlock, err := f.lock()
	defer unlock()
	if p, ok := f.issued[id]; ok && err == nil {
		change(&p)
		f.issued[id] = p
	}
	return err
}

func (f *fakeRecords) PurgeAppPasswords(_ context.Context, before time.Time) error {
	unlock, err := f.lock()
	defer unlock()
	over := func(t time.Time) bool { return !t.IsZero() && t.Before(before) }
	if err == nil {
		maps.DeleteFunc(f.issued, func(_ string, p AppPassword) bool { return over(p.Revoked) || over(p.Expires) })
	}
	return err
}

func (f *fakeRecords) TagKeys(context.Context) ([]string, error) {
	unlock, err := f.lock()
	defer unlock()
	keys := map[string]bool{}
	for _, g := range f.grants {
		keys[g.KeyID] = true
	}
	for _, p := range f.issued {
		if p.Revoked.IsZero() {
			keys[p.KeyID] = true
		}
	}
	return slices.Collect(maps.Keys(keys)), err
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

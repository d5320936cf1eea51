package auth

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	appPasswordIDSize = 8  // octets; twice that in hexadecimal
	maxLabel          = 64 // characters
	maxAppNetworks    = 20
)

// A NewAppPassword is what somebody wants an app password for.
type NewAppPassword struct {
	Account  string         // as people type it
	Label    string         // which device or program it is for
	Expires  time.Time      // zero: never
	Networks []netip.Prefix // where it may come from; none: from everywhere
	ReadOnly bool
	// Password is the account's upstream password, which the caller has proved right, so that the
	// app password works at once. Empty: it works from the next good login on.
	Password Secret
}

// An IssuedAppPassword is what the owner of an account puts into a mail program. It is shown
// once and is nowhere to be had again.
type IssuedAppPassword struct {
	ID       string `json:"id"`
	Account  string `json:"account"`
	Label    string `json:"label"`
	Password string `json:"password"` // the app password
	Sealed   bool   `json:"ready"`    // the upstream password is in its vault
}

// Format prints stars in the place of the app password.
func (i IssuedAppPassword) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "app password %s of %s: ", i.ID, i.Account)
	io.WriteString(f, stars)
}

// An AppPasswordSummary is what may be shown of an app password.
type AppPasswordSummary struct {
	ID       string         `json:"id"`
	Account  string         `json:"account"`
	Label    string         `json:"label"`
	Created  time.Time      `json:"created"`
	Expires  time.Time      `json:"expires,omitzero"`
	Revoked  time.Time      `json:"revoked,omitzero"`
	Networks []netip.Prefix `json:"networks"`
	ReadOnly bool           `json:"read_only"`
	Ready    bool           `json:"ready"` // its vault holds what the upstream takes, as far as we know
	Stale    bool           `json:"stale"` // its vault holds what the upstream has refused
	LastUse  UseSummary     `json:"last_use,omitzero"`
}

// A UseSummary is what may be shown of a Use, as far as it was written down.
type UseSummary struct {
	Time    time.Time  `json:"time"`
	Source  netip.Addr `json:"source"`
	Program string     `json:"program"`
}

// CreateAppPassword issues an app password. Its account needs no record here before.
func (d *Directory) CreateAppPassword(ctx context.Context, wanted NewAppPassword) (IssuedAppPassword, error) {
	var issued IssuedAppPassword
	err := d.change(ctx, "app-password.create", wanted.Account, func(name string) (err error) {
		wanted.Account = name
		issued, err = d.createAppPassword(ctx, wanted)
		return err
	})
	return issued, err
}

func (d *Directory) createAppPassword(ctx context.Context, wanted NewAppPassword) (IssuedAppPassword, error) {
	now := d.now()
	networks, err := appNetworks(wanted.Networks)
	if err != nil {
		return IssuedAppPassword{}, err
	}
	switch {
	case !goodLabel(wanted.Label):
		return IssuedAppPassword{}, refuse(BadValue, "the label must have 1 to 64 printable characters: say which device or program it is for")
	case !wanted.Expires.IsZero() && !wanted.Expires.After(now):
		return IssuedAppPassword{}, refuse(BadValue, "the app password would have expired already: give a time to come, or none")
	}

	digits := newAppDigits()
	defer clear(digits[:])
	keys := digits.keys()
	defer keys.wipe()
	p := AppPassword{
		ID: hex.EncodeToString(random(appPasswordIDSize)), Account: wanted.Account, Label: wanted.Label,
		Public: keys.public(), Networks: networks, ReadOnly: wanted.ReadOnly, Created: now, Expires: wanted.Expires,
	}
	p.Tag, p.KeyID = d.Keys.appPasswordTag(p.Account, keys.lookup)
	p.PublicTag = d.Keys.publicTag(p.KeyID, p)
	if len(wanted.Password) > 0 {
		if p.Sealed, err = p.seal(wanted.Password); err != nil {
			return IssuedAppPassword{}, err
		}
	}
	added, err := d.Records.AddAppPassword(ctx, p, maxAppPasswords)
	if err != nil {
		return IssuedAppPassword{}, fmt.Errorf("auth: writing an app password of %s: %w", p.Account, err)
	}
	if !added {
		return IssuedAppPassword{}, refuse(TooMany, fmt.Sprintf("%s has %d app passwords, and that is the most; "+
			"to make room, see: imapwarden app-password list %[1]s, and run: imapwarden app-password revoke %[1]s ID",
			p.Account, maxAppPasswords))
	}
	return IssuedAppPassword{ID: p.ID, Account: p.Account, Label: p.Label, Password: digits.text(), Sealed: p.ready()}, nil
}

func goodLabel(label string) bool {
	return utf8.ValidString(label) && strings.TrimSpace(label) != "" && utf8.RuneCountInString(label) <= maxLabel &&
		!strings.ContainsFunc(label, func(r rune) bool { return !unicode.IsPrint(r) })
}

// appNetworks returns the networks as addresses are compared with them: IPv4 as such, and no
// bits behind the prefix.
func appNetworks(networks []netip.Prefix) ([]netip.Prefix, error) {
	if len(networks) > maxAppNetworks {
		return nil, refuse(BadValue, fmt.Sprintf("an app password can have %d networks at most", maxAppNetworks))
	}
	var masked []netip.Prefix
	for _, n := range networks {
		if addr := n.Addr(); addr.Is4In6() {
			n = netip.PrefixFrom(addr.Unmap(), n.Bits()-96) // of fewer bits: no valid one
		}
		if !n.IsValid() {
			return nil, refuse(BadValue, "a network is none: write an address and its prefix, such as 192.0.2.0/24")
		}
		masked = append(masked, n.Masked())
	}
	return masked, nil
}

// AppPasswords returns what may be shown of the account's app passwords, oldest first, those
// that were revoked or expired a while ago included.
func (d *Directory) AppPasswords(ctx context.Context, name string) ([]AppPasswordSummary, error) {
	name, err := d.Names.Canonical(name)
	if err != nil {
		return nil, err
	}
	all, err := d.appPasswords(ctx, name)
	if err != nil {
		return nil, err
	}
	list := make([]AppPasswordSummary, len(all))
	for i, p := range all {
		list[i] = p.summary()
	}
	return list, nil
}

func (p AppPassword) summary() AppPasswordSummary {
	return AppPasswordSummary{
		ID: p.ID, Account: p.Account, Label: p.Label, Created: p.Created, Expires: p.Expires, Revoked: p.Revoked,
		Networks: append([]netip.Prefix{}, p.Networks...), // none is [] in JSON, not null
		ReadOnly: p.ReadOnly, Ready: p.ready(), Stale: p.Stale, LastUse: UseSummary(p.LastUse),
	}
}

// RevokeAppPassword takes one app password away, and ends the sessions under it.
func (d *Directory) RevokeAppPassword(ctx context.Context, name, id string) error {
	return d.change(ctx, "app-password.revoke", name, func(name string) error {
		known, err := d.revokeAppPassword(ctx, name, id)
		if err == nil && !known {
			return refuse(NotFound, fmt.Sprintf("%s has no app password %q that isn't revoked; "+
				"to see them, run: imapwarden app-password list %[1]s", name, id))
		}
		return err
	})
}

// RevokeAppPasswords takes all of the account's app passwords away and says how many there
// were. After an error, n are revoked.
func (d *Directory) RevokeAppPasswords(ctx context.Context, name string) (n int, err error) {
	err = d.change(ctx, "app-password.revoke", name, func(name string) error {
		all, err := d.appPasswords(ctx, name)
		if err != nil {
			return err
		}
		for _, p := range all {
			if !p.Revoked.IsZero() {
				continue
			}
			known, err := d.revokeAppPassword(ctx, name, p.ID)
			if err != nil {
				return err
			}
			if known {
				n++
			}
		}
		return nil
	})
	return n, err
}

func (d *Directory) revokeAppPassword(ctx context.Context, name, id string) (known bool, err error) {
	known, err = d.Records.RevokeAppPassword(ctx, name, id, d.now())
	if err != nil {
		return false, fmt.Errorf("auth: revoking app password %s of %s: %w", id, name, err)
	}
	if known {
		d.ended(Revocation{Account: name, AppPassword: id})
	}
	return known, nil
}

func (d *Directory) appPasswords(ctx context.Context, name string) ([]AppPassword, error) {
	all, err := d.Records.AppPasswords(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("auth: reading the app passwords of %s: %w", name, err)
	}
	return all, nil
}

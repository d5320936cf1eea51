package auth

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/crypto/nacl/box"
)

// countingSeals is a store that counts what is written to vaults.
type countingSeals struct {
	*fakeRecords
	calls, vaults int
	err           error
}

func (c *countingSeals) SealAppPasswords(ctx context.Context, account string, sealed map[string][]byte) error {
	if c.err != nil {
		return c.err
	}
	c.calls++
	c.vaults += len(sealed)
	return c.fakeRecords.SealAppPasswords(ctx, account, sealed)
}

// counting puts a countingSeals before the world's store.
func (w *world) counting() *countingSeals {
	c := &countingSeals{fakeRecords: w.records}
	w.Records = c
	return c
}

// sealedBy says what was written since the last call.
func (c *countingSeals) sealedBy(t *testing.T, calls, vaults int) {
	t.Helper()
	if c.calls != calls || c.vaults != vaults {
		t.Errorf("%d vaults in %d calls, want %d in %d", c.vaults, c.calls, vaults, calls)
	}
	c.calls, c.vaults = 0, 0
}

func TestGoodLoginSealsThePassword(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		app := w.issue(NewAppPassword{})
		w.turnedAway(with(app.Password), NotSealed)
		w.refused(w.visit(with("guess"+w.code())), WrongPassword)
		w.refused(w.visit(with(password)), NoCode)
		w.turnedAway(with(app.Password), NotSealed)
		w.accepted(w.visit(with(password+w.code())), FactorCode)
		w.admitted(w.visit(with(app.Password)), app)

		second := w.issue(NewAppPassword{})
		w.turnedAway(with(second.Password), NotSealed)
		w.accepted(w.visit(with(password)), FactorGrant)
		w.admitted(w.visit(with(second.Password)), second)

		bobs := w.issue(NewAppPassword{Account: "bob"})
		w.accepted(w.visit(with(password).of("bob").in(Optional)), FactorNone)
		w.admitted(w.visit(with(bobs.Password).of("bob")), bobs)
	})
}

func TestLoginThatLackedItsSecondFactorSealsNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		app := w.issue(NewAppPassword{})
		if v := w.visit(with(password).in(Observe)); v.Outcome != Accepted || v.WouldRefuse != NoCode {
			t.Errorf("got %+v", v)
		}
		w.turnedAway(with(app.Password), NotSealed)
	})
}

func TestChangedPasswordIsSealedAnewForAll(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		phone := w.issue(NewAppPassword{Password: Secret(password)})
		tablet := w.issue(NewAppPassword{Password: Secret(password)})
		w.password = "another one"
		w.refused(w.visit(with(phone.Password)), SealedOutdated)
		w.turnedAway(with(phone.Password), SealedOutdated) // the upstream has said it once
		w.accepted(w.visit(with(w.password+w.code())), FactorCode)
		w.admitted(w.visit(with(phone.Password)), phone)
		w.admitted(w.visit(with(tablet.Password)), tablet)

		w.password = "a third one"
		w.refused(w.visit(with(tablet.Password)), SealedOutdated)
		w.accepted(w.visit(with(w.password).in(Optional).of("carol")), FactorNone) // another account's
		w.turnedAway(with(tablet.Password), SealedOutdated)
		time.Sleep(time.Minute)
		w.accepted(w.visit(with(w.password+w.code())), FactorCode)
		w.accepted(w.visit(with(w.password)), FactorGrant)
		w.admitted(w.visit(with(tablet.Password)), tablet)
	})
}

func TestNoIsForWhatWasTried(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		app := w.issue(NewAppPassword{Password: Secret("of before")})
		claim, err := w.Examine(t.Context(), with(app.Password).from(home).of("alice"))
		if err != nil {
			t.Fatal(err)
		}
		defer claim.Release()
		w.accepted(w.visit(with(password+w.code())), FactorCode) // seals while the upstream thinks
		v, err := claim.Deny(t.Context())
		if err != nil {
			t.Error(err)
		}
		w.refused(v, SealedOutdated)
		w.admitted(w.visit(with(app.Password)), app)
	})
}

func TestSameLoginSealsOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.counting()
		byCode := func() {
			t.Helper()
			time.Sleep(time.Minute)
			w.accepted(w.visit(with(w.password+w.code())), FactorCode)
		}
		byCode()
		c.sealedBy(t, 0, 0)
		app, _ := w.issue(NewAppPassword{}), w.issue(NewAppPassword{})
		byCode()
		c.sealedBy(t, 1, 2)
		byCode()
		w.accepted(w.visit(with(password)), FactorGrant)
		c.sealedBy(t, 0, 0)

		w.issue(NewAppPassword{})
		byCode()
		c.sealedBy(t, 1, 1)
		byCode()
		c.sealedBy(t, 0, 0)

		w.password = "another one"
		byCode()
		c.sealedBy(t, 1, 3)
		w.password = password // and back: what is remembered is the last
		byCode()
		c.sealedBy(t, 1, 3)
		w.admitted(w.visit(with(app.Password)), app)

		w.restart()
		c = w.counting()
		byCode()
		c.sealedBy(t, 1, 3)
	})
}

func TestMemoryOfSealsIsBounded(t *testing.T) {
	var s sealedLately
	name := func(n int) string { return string(rune('a'+n%26)) + string(rune(0x4e00+n)) }
	for n := range maxSealedLately + 5 {
		s.add(name(n), Secret(password))
	}
	if n := len(s.byAccount); n != 5 {
		t.Errorf("%d accounts remembered, want all forgotten but the last 5", n)
	}
	if !s.holds(name(maxSealedLately), Secret(password)) || s.holds(name(maxSealedLately), Secret("guess")) {
		t.Error("the last ones aren't known")
	}
}

func TestSealingTroubleRefusesNobody(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := w.counting()
		core, logs := observer.New(zap.WarnLevel)
		w.Log = zap.New(core)
		app, broken := w.issue(NewAppPassword{}), w.issue(NewAppPassword{})
		c.err = errDown
		w.accepted(w.visit(with(password+w.code())), FactorCode)
		if logs.FilterField(zap.String("account", "alice")).Len() != 1 {
			t.Errorf("logged %v", logs.All())
		}
		c.err = nil
		p := w.records.issued[broken.ID]
		p.Public = p.Public[:31]
		w.records.issued[broken.ID] = p
		w.accepted(w.visit(with(password)), FactorGrant)
		w.admitted(w.visit(with(app.Password)), app) // the other's damage isn't its own
		w.turnedAway(with(broken.Password), NotSealed)
		if logs.FilterField(zap.String("account", "alice")).Len() != 2 {
			t.Errorf("logged %v", logs.All())
		}
	})
}

func TestVaultThatWasTamperedWith(t *testing.T) {
	sealTo := func(p AppPassword, plaintext []byte) []byte {
		return must(box.SealAnonymous(nil, plaintext, (*[32]byte)(p.Public), nil))
	}
	for name, tamper := range map[string]func(p *AppPassword, other AppPassword){
		"damaged":        func(p *AppPassword, _ AppPassword) { p.Sealed = slices.Clone(p.Sealed); p.Sealed[50] ^= 1 },
		"cut":            func(p *AppPassword, _ AppPassword) { p.Sealed = p.Sealed[:20] },
		"another's":      func(p *AppPassword, other AppPassword) { p.Sealed = other.Sealed },
		"another's, too": func(p *AppPassword, other AppPassword) { p.Sealed, p.Public = other.Sealed, other.Public },
		"for another": func(p *AppPassword, other AppPassword) {
			other.Public = p.Public
			p.Sealed = must(other.seal(Secret(password)))
		},
		"for another account": func(p *AppPassword, _ AppPassword) {
			moved := *p
			moved.Account = "bob"
			p.Sealed = must(moved.seal(Secret(password)))
		},
		"empty password": func(p *AppPassword, _ AppPassword) {
			owner := p.owner()
			p.Sealed = sealTo(*p, append(owner[:], make([]byte, vaultBlock)...))
		},
		"too long a size": func(p *AppPassword, _ AppPassword) {
			owner := p.owner()
			p.Sealed = sealTo(*p, append(owner[:], 0, 9, 'x'))
		},
		"nothing inside": func(p *AppPassword, _ AppPassword) { p.Sealed = sealTo(*p, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				core, logs := observer.New(zap.WarnLevel)
				w.Log = zap.New(core)
				app, other := w.issue(NewAppPassword{Password: Secret(password)}), w.issue(NewAppPassword{Password: Secret(password)})
				w.accepted(w.visit(with(password+w.code())), FactorCode)
				p := w.records.issued[app.ID]
				public := p.Public
				tamper(&p, w.records.issued[other.ID])
				w.records.issued[app.ID] = p
				w.turnedAway(with(app.Password), NotSealed)
				if logs.FilterField(zap.String("app_password", app.ID)).Len() != 1 {
					t.Errorf("logged %v", logs.All())
				}

				p = w.records.issued[app.ID]
				p.Public = public
				w.records.issued[app.ID] = p
				w.accepted(w.visit(with(password)), FactorGrant)
				w.admitted(w.visit(with(app.Password)), app)
			})
		})
	}
}

func TestAppPasswordThatWasMovedInTheStore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		bobs := w.issue(NewAppPassword{Account: "bob", Password: Secret(password)})
		p := w.records.issued[bobs.ID]
		p.Account = "alice"
		w.records.issued[bobs.ID] = p
		at := with(bobs.Password)
		w.turnedAway(at, UnknownAppPassword)
		w.turnedAway(at.of("bob"), UnknownAppPassword)
		at.Master = true
		w.turnedAway(at, UnknownAppPassword)
	})
}

// Whoever has the store and the key file has neither the upstream passwords nor anything to try
// guesses of them against, and no app password.
func TestStoreAndKeysDontOpenTheVault(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.issue(NewAppPassword{Password: Secret(password)})
		app := w.issue(NewAppPassword{Password: Secret(password + " that is longer")})
		digits, _ := parseAppPassword([]byte(app.Password))
		secret := digits.keys()

		var stored [][]byte
		for _, p := range w.records.issued {
			stored = append(stored, p.Tag, p.Public, p.Sealed, []byte(p.ID), []byte(p.Label), []byte(p.KeyID))
		}
		for _, b := range stored {
			for _, s := range [][]byte{[]byte(password), []byte(app.Password), digits[:], secret.lookup, secret.private[:]} {
				if bytes.Contains(b, s) {
					t.Error("a secret is stored as it is")
				}
			}
			for _, purpose := range []string{passwordPurpose, loginPurpose, appPasswordPurpose, "flight", ""} {
				for _, guess := range []string{password, app.Password} {
					for _, tag := range [][]byte{
						w.Keys.TagWith(w.Keys.ID(), purpose, []byte(guess)),
						w.Keys.TagWith(w.Keys.ID(), purpose, []byte("alice"), []byte(guess)),
					} {
						if bytes.Equal(b, tag) {
							t.Error("a tag is stored that a guess of the password makes")
						}
					}
				}
			}
		}
		p := w.records.issued[app.ID]
		held := w.Keys.file.ring.Load().keys[0]
		for _, k := range append(stored, held.secret, held.derive("imapwarden app password vault")) {
			if len(k) == 32 {
				if _, ok := box.OpenAnonymous(nil, p.Sealed, (*[32]byte)(p.Public), (*[32]byte)(k)); ok {
					t.Error("the vault opens without the app password")
				}
			}
		}
		for id, other := range w.records.issued {
			if opened, err := secret.open(other); (err == nil) != (id == app.ID) {
				t.Errorf("%s: opened %t", id, opened != nil)
			}
			if len(other.Sealed) != len(p.Sealed) {
				t.Error("the size tells passwords apart")
			}
		}
	})
}

func TestVaultHoldsAnyPassword(t *testing.T) {
	digits := newAppDigits()
	keys := digits.keys()
	p := AppPassword{ID: "1", Account: "alice", Public: keys.public()}
	sizes := map[int]bool{}
	for _, length := range []int{1, 61, 62, 63, 126, 127, 300, 65535} {
		secret := Secret(strings.Repeat("ü", length)[:length])
		sealed, err := p.seal(secret)
		if err != nil {
			t.Fatal(err)
		}
		p.Sealed = sealed
		if opened, err := keys.open(p); err != nil || !opened.Equal(secret) {
			t.Errorf("%d octets: %v", length, err)
		}
		sizes[len(sealed)] = true
	}
	if len(sizes) != 5 {
		t.Errorf("%d sizes, want those of 1, 2, 3 and 5 blocks, and of the largest", len(sizes))
	}
	for _, length := range []int{0, 65536} {
		if _, err := p.seal(make(Secret, length)); err == nil {
			t.Errorf("sealed %d octets", length)
		}
	}
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// TestVaultIsForItsOwnKeyOnly: whoever can write to the store must not be sealed to.
func TestVaultIsForItsOwnKeyOnly(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		issued := w.issue(NewAppPassword{})
		forged := newAppDigits().keys()
		if err := w.records.change(issued.ID, func(p *AppPassword) { p.Public = forged.public() }); err != nil {
			t.Fatal(err)
		}
		w.accepted(w.visit(with(password+w.code())), FactorCode)
		list, err := w.records.AppPasswords(t.Context(), "alice")
		if err != nil || len(list) != 1 || len(list[0].Sealed) > 0 {
			t.Errorf("sealed to a forged key: %v", err)
		}
	})
}

// TestForgedKeyIsNeverVouchedFor: not by an app password that is tagged anew, and a master user's
// upstream seals nothing.
func TestForgedKeyIsNeverVouchedFor(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		issued := w.issue(NewAppPassword{})
		forged := newAppDigits().keys()
		if err := w.records.change(issued.ID, func(p *AppPassword) { p.Public, p.KeyID = forged.public(), "ffffffff" }); err != nil {
			t.Fatal(err)
		}
		behind := with(issued.Password)
		behind.Master = true
		w.password = "" // the master user's login takes no password of the account
		if v := w.visit(behind); v.Factor != FactorAppPassword {
			t.Fatalf("%+v", v)
		}
		w.password = password
		w.accepted(w.visit(with(password+w.code())), FactorCode)
		list, err := w.records.AppPasswords(t.Context(), "alice")
		if err != nil || len(list) != 1 || len(list[0].Sealed) > 0 {
			t.Errorf("sealed to a forged key: %v", err)
		}
	})
}

// TestOutdatedSealIsTriedAgain: an upstream that refuses for a while what is right doesn't shut a
// device out for good, and one that means it isn't asked at each try.
func TestOutdatedSealIsTriedAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		app := w.issue(NewAppPassword{Password: Secret(password)})
		w.password = "locked for a while"
		for range 90 {
			w.refused(w.visit(with(app.Password)), SealedOutdated)
			time.Sleep(time.Minute)
		}
		if n := len(w.asked); n != 2 {
			t.Errorf("the upstream was asked %d times in an hour and a half, want 2", n)
		}
		w.password = password
		time.Sleep(time.Hour)
		w.admitted(w.visit(with(app.Password)), app)
		if list, err := w.records.AppPasswords(t.Context(), "alice"); err != nil || list[0].Stale {
			t.Errorf("still marked: %v", err)
		}
	})
}

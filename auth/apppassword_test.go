package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// knownAppPassword must stay one for ever: devices hold such.
const knownAppPassword = "abcde-fghij-kmnpq-rstuv-wxyz2-3swiy"

func TestAppPasswordShape(t *testing.T) {
	bare := strings.ReplaceAll(knownAppPassword, "-", "")
	spaced := strings.ReplaceAll(knownAppPassword, "-", " ")
	typo := "b" + knownAppPassword[1:]
	for _, test := range []struct {
		secret string
		shape  appShape
	}{
		{knownAppPassword, wholeAppPassword},
		{strings.ToUpper(knownAppPassword), wholeAppPassword},
		{bare, wholeAppPassword},
		{spaced, wholeAppPassword},
		{typo, mistypedAppPassword},
		{strings.ReplaceAll(typo, "-", " "), mistypedAppPassword},
		{"0" + knownAppPassword[1:], mistypedAppPassword},
		{"L" + knownAppPassword[1:], mistypedAppPassword},
		{strings.ReplaceAll(typo, "-", ""), noAppPassword},
		{"0" + bare[1:], noAppPassword},
		{"?" + knownAppPassword[1:], noAppPassword},
		{strings.Replace(knownAppPassword, "-", " ", 1), mistypedAppPassword},
		{strings.ReplaceAll(knownAppPassword, "-", "_"), mistypedAppPassword},
		{knownAppPassword[1:], noAppPassword},
		{"crane-piano-hotel-zebra-mango-tiger", noAppPassword}, // words of five letters
		{strings.ReplaceAll(knownAppPassword, "-", "\u2013"), mistypedAppPassword},
		{strings.ReplaceAll(knownAppPassword, "-", " - "), mistypedAppPassword},
		{"\u00a0" + knownAppPassword, mistypedAppPassword},
		{strings.Replace(knownAppPassword, "-", "", 1), mistypedAppPassword},
		{"\"" + knownAppPassword + "\"", mistypedAppPassword},
		{knownAppPassword + "2", mistypedAppPassword},
		{knownAppPassword + "123456", mistypedAppPassword}, // a code behind it
		{knownAppPassword + ",123456", mistypedAppPassword},
		{bare + "abcde", mistypedAppPassword},
		{typo + "123456", noAppPassword},
		{" " + knownAppPassword + "  ", wholeAppPassword}, // as keyboards do
		{spaced + " ", wholeAppPassword},
		{"correct horse battery staple again!", noAppPassword},
		{"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", noAppPassword},
		{password, noAppPassword},
		{"", noAppPassword},
	} {
		digits, shape := parseAppPassword([]byte(test.secret))
		if shape != test.shape || LooksLikeAppPassword([]byte(test.secret)) != (shape != noAppPassword) {
			t.Errorf("%q has shape %d, want %d", test.secret, shape, test.shape)
		}
		if shape == wholeAppPassword && digits.text() != knownAppPassword {
			t.Errorf("%q was read as %s", test.secret, digits.text())
		}
	}
}

func TestLooksLikeAppPasswordAllocatesNothing(t *testing.T) {
	for _, secret := range []string{knownAppPassword, "b" + knownAppPassword[1:], password} {
		secret := []byte(secret)
		if n := testing.AllocsPerRun(100, func() { LooksLikeAppPassword(secret) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func FuzzAppPassword(f *testing.F) {
	f.Add([]byte("twenty-six octets of chance"), uint8(3), uint8(7))
	f.Add([]byte{}, uint8(29), uint8(0))
	f.Fuzz(func(t *testing.T, chance []byte, at, digit uint8) {
		var octets [appRandom]byte
		copy(octets[:], chance)
		digits := appDigits([]byte(digitsOf(octets[:])))
		if digits.hasNeighbour() || !digits.mixed() {
			return // newAppDigits draws again
		}
		text := digits.text()
		if read, shape := parseAppPassword([]byte(text)); shape != wholeAppPassword || read != digits || read.text() != text {
			t.Fatalf("%s was read as %s, %d", text, read.text(), shape)
		}
		wrong := []byte(text)
		i := int(at) % appLength
		i += i / appGroup
		if wrong[i] = textDigits[digit%32]; wrong[i] == text[i] {
			return
		}
		if _, shape := parseAppPassword(wrong); shape != mistypedAppPassword {
			t.Errorf("%s with a wrong digit, %s, has shape %d", text, wrong, shape)
		}
	})
}

// Without hasNeighbour, FuzzAppPassword would fail once in a million tries.
func TestNeighboursAreFound(t *testing.T) {
	for n := range 20_000 {
		digits := appDigits([]byte(fmt.Sprintf("%s%s", strings.Repeat("a", appRandom-4), digitsOf([]byte{byte(n >> 15), byte(n >> 10), byte(n >> 5), byte(n)}))))
		if !digits.hasNeighbour() {
			continue
		}
		for i := range digits {
			for _, c := range []byte(textDigits) {
				other := []byte(digits.text())
				if j := i + i/appGroup; other[j] != c {
					other[j] = c
					if _, shape := parseAppPassword(other); shape == wholeAppPassword {
						return
					}
				}
			}
		}
		t.Fatalf("%s has no neighbour", digits.text())
	}
	t.Fatal("no neighbours found")
}

// directory administers the world's accounts.
func (w *world) directory() *Directory {
	return &Directory{Records: w.Records, Keys: w.Keys, Issuer: "mail.example.org", Grant: w.Grant}
}

// issue gives an app password, to alice where no other account is named.
func (w *world) issue(wanted NewAppPassword) IssuedAppPassword {
	w.t.Helper()
	if wanted.Account == "" {
		wanted.Account = "alice"
	}
	if wanted.Label == "" {
		wanted.Label = "phone"
	}
	issued, err := w.directory().CreateAppPassword(w.t.Context(), wanted)
	if err != nil {
		w.t.Fatal(err)
	}
	return issued
}

func (w *world) revoke(id string) {
	w.t.Helper()
	if err := w.directory().RevokeAppPassword(w.t.Context(), "alice", id); err != nil {
		w.t.Error(err)
	}
}

func (w *world) admitted(v Verdict, app IssuedAppPassword) {
	w.t.Helper()
	if v.Outcome != Accepted || v.Factor != FactorAppPassword || v.AppPassword != app.ID || v.Reason != "" || len(v.Grants) > 0 {
		w.t.Errorf("got %+v, want let in by app password %s", v, app.ID)
	}
}

// turnedAway is refused without the upstream's word.
func (w *world) turnedAway(at Attempt, reason Reason) {
	w.t.Helper()
	before := len(w.asked)
	w.refused(w.visit(at), reason)
	if len(w.asked) != before {
		w.t.Errorf("the upstream was asked about an app password that is refused as %s", reason)
	}
}

func TestAppPasswordLetsIn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		app := w.issue(NewAppPassword{Password: Secret(password), ReadOnly: true})
		if !app.Sealed || app.Account != "alice" || app.Label != "phone" {
			t.Errorf("issued %v", app)
		}
		for _, text := range []string{
			app.Password, strings.ReplaceAll(app.Password, "-", ""), strings.ToUpper(strings.ReplaceAll(app.Password, "-", " ")),
		} {
			v := w.visit(with(text).from(elsewhere))
			w.admitted(v, app)
			if !v.ReadOnly {
				t.Error("may change the mailbox")
			}
		}
		for _, asked := range w.asked {
			if asked != password {
				t.Error("the upstream was asked with something else than the password")
			}
		}
		if len(w.asked) != 3 || len(w.records.grants) != 0 {
			t.Errorf("asked %d times, %d grants", len(w.asked), len(w.records.grants))
		}
	})
}

func TestAppPasswordIsRefusedHere(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		app := w.issue(NewAppPassword{Password: Secret(password)})
		bobs := w.issue(NewAppPassword{Account: "bob", Password: Secret(password)})
		w.turnedAway(with(app.Password).of("bob"), UnknownAppPassword)
		w.turnedAway(with(bobs.Password), UnknownAppPassword)
		w.turnedAway(with(knownAppPassword).in(Observe), UnknownAppPassword)
		w.turnedAway(with("0"+app.Password[1:]).in(Observe), MistypedPassword)
		w.turnedAway(with(w.issue(NewAppPassword{}).Password), NotSealed)

		near := w.issue(NewAppPassword{Password: Secret(password), Networks: []netip.Prefix{
			netip.MustParsePrefix("::ffff:192.0.2.99/120"), netip.MustParsePrefix("2001:db8::1/64"),
		}})
		w.turnedAway(with(near.Password).from(elsewhere), ForeignNetwork)
		w.admitted(w.visit(with(near.Password)), near)
		w.admitted(w.visit(with(near.Password).from(netip.MustParseAddr("::ffff:192.0.2.1"))), near)
		w.admitted(w.visit(with(near.Password).from(netip.MustParseAddr("2001:db8::9%eth0"))), near)

		brief := w.issue(NewAppPassword{Password: Secret(password), Expires: time.Now().Add(time.Hour)})
		w.admitted(w.visit(with(brief.Password)), brief)
		time.Sleep(time.Hour)
		w.turnedAway(with(brief.Password), ExpiredAppPassword)

		w.revoke(app.ID)
		w.turnedAway(with(app.Password), RevokedAppPassword)
	})
}

func TestAppPasswordThatEndsWhileTheUpstreamThinks(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(w *world, id string)
		want Reason
	}{
		"revoked": {func(w *world, id string) { w.revoke(id) }, RevokedAppPassword},
		"expired": {func(*world, string) { time.Sleep(time.Hour) }, ExpiredAppPassword},
		"removed": {func(w *world, _ string) { _ = w.directory().Remove(w.t.Context(), "alice") }, RevokedAppPassword},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				app := w.issue(NewAppPassword{Password: Secret(password), Expires: time.Now().Add(time.Hour)})
				claim, err := w.Examine(t.Context(), with(app.Password).from(home).of("alice"))
				if err != nil {
					t.Fatal(err)
				}
				defer claim.Release()
				test.end(w, app.ID)
				v, err := claim.Accept(t.Context())
				if err != nil {
					t.Error(err)
				}
				w.refused(v, test.want)
			})
		})
	}
}

func TestMasterNeedsNoVault(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		app := w.issue(NewAppPassword{})
		at := with(app.Password).from(home).of("alice")
		at.Master = true
		claim, err := w.Examine(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		defer claim.Release()
		if _, decided := claim.Decided(); decided || !claim.Master() || len(claim.Password()) > 0 {
			t.Error("not to be asked as the master user")
		}
		v, err := claim.Accept(t.Context())
		if err != nil {
			t.Error(err)
		}
		w.admitted(v, app)

		w.revoke(app.ID)
		claim, err = w.Examine(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		if v, decided := claim.Decided(); !decided || claim.Master() {
			t.Error("a revoked one is asked about")
		} else {
			w.refused(v, RevokedAppPassword)
		}
	})
}

func TestMasterThatIsRefusedMakesNothingStale(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		app := w.issue(NewAppPassword{Password: Secret(password)})
		at := with(app.Password)
		at.Master = true
		w.refused(w.visit(at), WrongPassword) // the world's upstream has no master user
		if w.records.issued[app.ID].Stale {
			t.Error("stale")
		}
	})
}

func TestAppPasswordMovesToTheCurrentKey(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		app := w.issue(NewAppPassword{Password: Secret(password)})
		old, current := w.Keys, testKeys(t)
		path := filepath.Join(t.TempDir(), "both.key")
		text := keyText(slices.Concat(current.file.ring.Load().keys, old.file.ring.Load().keys))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		both, err := LoadKeys(path)
		if err != nil {
			t.Fatal(err)
		}

		w.Keys = both
		w.admitted(w.visit(with(app.Password)), app)
		if p := w.records.issued[app.ID]; p.KeyID != current.ID() {
			t.Errorf("tagged with key %s, want %s", p.KeyID, current.ID())
		}
		w.Keys = current
		w.admitted(w.visit(with(app.Password)), app)
		w.Keys = old
		w.turnedAway(with(app.Password), UnknownAppPassword)
	})
}

func TestAppPasswordAndStoreTrouble(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		app := w.issue(NewAppPassword{Password: Secret(password)})
		at := with(app.Password).from(home).of("alice")
		claim, err := w.Examine(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		w.records.setDown(true)
		if v, err := claim.Accept(t.Context()); v.Outcome != Refused || !errors.Is(err, errDown) {
			t.Errorf("%+v, %v", v, err)
		}
		held := claim.Password()
		claim.Release()
		if strings.Trim(string(held), "\x00") != "" {
			t.Error("the password from the vault wasn't wiped")
		}
		if claim, err := w.Examine(t.Context(), at); claim != nil || !errors.Is(err, errDown) {
			t.Errorf("%v, %v", claim, err)
		}
		w.records.setDown(false)
		w.admitted(w.visit(at), app)

		claim, err = w.Examine(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		defer claim.Release()
		w.records.setDown(true)
		v, err := claim.Deny(t.Context())
		if !errors.Is(err, errDown) {
			t.Errorf("%v", err)
		}
		w.refused(v, SealedOutdated)
	})
}

func TestFamiliarIsWhereTheAppPasswordWasUsedLast(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		app := w.issue(NewAppPassword{Password: Secret(password)})
		familiar := func(source netip.Addr, want bool) {
			t.Helper()
			if v := w.visit(with(app.Password).from(source)); v.Familiar != want {
				t.Errorf("familiar with %s: %t", source, v.Familiar)
			}
		}
		familiar(home, false)
		familiar(neighbour, true)
		if err := w.write(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.restart()
		familiar(home, true)
		familiar(elsewhere, false)
		familiar(elsewhere, true)
		w.revoke(app.ID)
		familiar(elsewhere, true)
	})
}

func TestLastUsesAreWritten(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		app := w.issue(NewAppPassword{Password: Secret(password)})
		at := with(app.Password)
		at.Program = "Thunderbird"
		w.visit(at)
		used := time.Now()
		time.Sleep(time.Minute)
		w.records.setDown(true)
		if err := w.write(t.Context()); !errors.Is(err, errDown) {
			t.Errorf("%v", err)
		}
		w.records.setDown(false)
		if err := w.write(t.Context()); err != nil {
			t.Error(err)
		}
		if got, want := w.records.issued[app.ID].LastUse, (Use{used, home, "Thunderbird"}); got != want {
			t.Errorf("used %v, want %v", got, want)
		}
		if len(w.uses.unwritten) != 0 {
			t.Error("what was written is kept")
		}
	})
}

func TestAppPasswordsDontPrint(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		app := w.issue(NewAppPassword{Password: Secret(password)})
		w.visit(with(password + w.code())) // puts something into sealedLately
		digits, _ := parseAppPassword([]byte(app.Password))
		claim, err := w.Examine(t.Context(), with(app.Password).from(home).of("alice"))
		if err != nil {
			t.Fatal(err)
		}
		defer claim.Release()
		keys := digits.keys()
		secrets := map[string][]byte{
			"password": []byte(password), "app password": []byte(app.Password), "digits": digits[:],
			"lookup": keys.lookup, "private key": keys.private[:], "memory key": w.sealed.key,
		}
		for _, value := range []any{
			app, &app,
			[]IssuedAppPassword{app},
			digits, &digits, keys, &keys, claim, w.records.issued[app.ID],
			NewAppPassword{Password: Secret(password)},
			&w.uses,
		} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				printed := fmt.Sprintf(verb, value)
				for name, secret := range secrets {
					for _, form := range []string{"%s", "%x", "%v", "%#v"} {
						if strings.Contains(printed, strings.Trim(fmt.Sprintf(form, secret), "[]")) {
							t.Errorf("%T shows the %s under %s", value, name, verb)
						}
					}
				}
			}
		}
	})
}

func BenchmarkAppPassword(b *testing.B) {
	records := newFake()
	keys, err := CreateKeys(filepath.Join(b.TempDir(), "master.key"))
	if err != nil {
		b.Fatal(err)
	}
	d := &Directory{Records: records, Keys: keys}
	app, err := d.CreateAppPassword(b.Context(), NewAppPassword{Account: "alice", Label: "phone", Password: Secret(password)})
	if err != nil {
		b.Fatal(err)
	}
	a := &Authenticator{Records: records, Keys: keys}
	at := with(app.Password).from(home).of("alice")
	for b.Loop() {
		claim, err := a.Examine(b.Context(), at)
		if err != nil {
			b.Fatal(err)
		}
		if v, err := claim.Accept(b.Context()); err != nil || v.Outcome != Accepted {
			b.Fatalf("%+v, %v", v, err)
		}
		claim.Release()
	}
}

func TestNewAppPasswordsAreMixed(t *testing.T) {
	for range 2000 {
		if d := newAppDigits(); !d.mixed() || d.hasNeighbour() {
			t.Fatal("a slip of the finger could pass for somebody's own password")
		}
	}
}

// TestRefusalNamesTheAppPassword: with four devices one must see in the audit which is failing.
func TestRefusalNamesTheAppPassword(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		app := w.issue(NewAppPassword{})
		known := w.visit(with(app.Password))
		w.refused(known, NotSealed)
		unknown := w.visit(with(newAppDigits().text()))
		w.refused(unknown, UnknownAppPassword)
		if known.AppPassword != app.ID || unknown.AppPassword != "" {
			t.Errorf("named %q and %q, want %q and nothing", known.AppPassword, unknown.AppPassword, app.ID)
		}
	})
}

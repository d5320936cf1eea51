package auth

import (
	"encoding/base32"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pquerna/otp/totp"
)

const password = "open sesame"

var (
	home      = netip.MustParseAddr("192.0.2.10")
	neighbour = netip.MustParseAddr("192.0.2.77")
	elsewhere = netip.MustParseAddr("203.0.113.9")
)

// A world is an Authenticator with one enrolled account, alice, and an upstream that
// knows her password. Tests run inside synctest.
type world struct {
	*Authenticator
	t        *testing.T
	records  *fakeRecords
	shared   string // base32
	password string // at the upstream
	mu       sync.Mutex
	asked    []string // of the upstream
}

// inWorld runs a test at 2000-01-01 00:00:00, on the edge of a time step.
func inWorld(t *testing.T, do func(t *testing.T, w *world)) {
	keys := testKeys(t)
	synctest.Test(t, func(t *testing.T) {
		records := newFake()
		settings := GrantSettings{From: FromNetwork, IPv4Prefix: 24, IPv6Prefix: 64, Absolute: 12 * time.Hour, Idle: time.Hour}
		directory := Directory{Records: records, Keys: keys, Issuer: "mail.example.org", Grant: settings}
		enrolment, err := directory.Enroll(t.Context(), "alice", true)
		if err != nil {
			t.Fatal(err)
		}
		do(t, &world{
			Authenticator: &Authenticator{Records: records, Keys: keys, Grant: settings},
			t:             t, records: records, shared: enrolment.Secret, password: password,
		})
	})
}

// restart forgets all that isn't in the store.
func (w *world) restart() {
	w.Authenticator = &Authenticator{Records: w.Records, Keys: w.Keys, Grant: w.Grant, CodeSeparator: w.CodeSeparator}
}

// neverRight returns digits that weren't the account's code within two days, nor will be soon.
func (w *world) neverRight() string {
	w.t.Helper()
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(w.shared)
	if err != nil {
		w.t.Fatal(err)
	}
	now := time.Now()
	for n := range 1000 {
		code := fmt.Sprintf("%06d", n)
		if !rightAt(code, secret, stepOf(now.Add(-72*time.Hour)), stepOf(now)+5) {
			return code
		}
	}
	w.t.Fatal("every code was right")
	return ""
}

func (w *world) code() string {
	w.t.Helper()
	code, err := totp.GenerateCode(w.shared, time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return code
}

func (w *world) judge(password Secret) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, string(password))
	return string(password) == w.password
}

// login is what a session does, with an upstream that thinks for a second.
func (w *world) login(at Attempt) Verdict {
	w.t.Helper()
	if at.Account == "" {
		at.Account = "alice"
	}
	if !at.Source.IsValid() {
		at.Source = home
	}
	claim, err := w.Examine(w.t.Context(), at)
	if err != nil {
		w.t.Error(err)
		return Verdict{}
	}
	defer claim.Release()
	if v, ok := claim.Decided(); ok {
		return v
	}
	right := w.judge(claim.Password())
	time.Sleep(time.Second)
	var v Verdict
	if right {
		v, err = claim.Accept(w.t.Context())
	} else {
		v, err = claim.Deny(w.t.Context())
	}
	if err != nil {
		w.t.Error(err)
	}
	return v
}

// visit is a login and, where it is let in, a session that ends at once.
func (w *world) visit(at Attempt) Verdict {
	w.t.Helper()
	v := w.login(at)
	w.SessionEnded(v)
	return v
}

func with(secret string) Attempt { return Attempt{Secret: Secret(secret)} }

func (at Attempt) from(source netip.Addr) Attempt { at.Source = source; return at }

func (at Attempt) in(mode Mode) Attempt { at.Mode = mode; return at }

func (at Attempt) of(account string) Attempt { at.Account = account; return at }

func (w *world) accepted(v Verdict, factor Factor) {
	w.t.Helper()
	if v.Outcome != Accepted || v.Factor != factor || v.Reason != "" || v.WouldRefuse != "" || (len(v.Grants) == 0) != (factor == FactorNone) {
		w.t.Errorf("got %+v, want accepted by %s", v, factor)
	}
}

func (w *world) refused(v Verdict, reason Reason) {
	w.t.Helper()
	if v.Outcome != Refused || v.Reason != reason || len(v.Grants) > 0 || v.Factor != FactorNone {
		w.t.Errorf("got %+v, want refused as %s", v, reason)
	}
}

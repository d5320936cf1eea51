package e2e

import (
	"crypto/tls"
	"database/sql"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pires/go-proxyproto"
)

// Bounds that limits have by default.
const (
	accountFailures = 10
	// What the upstream is asked of those who can't be let in, of all accounts and addresses together:
	// 20 at once, and 5 an hour, which no test lasts (limits.unproved_per_hour).
	unprovedAsked = 20 + 5
	sprayedAfter  = 5 // accounts for which a password was wrong
)

// An attacker is the command line of a program that tries all passwords in a file on one account,
// so many at a time.
type attacker func(t *testing.T, w *warden, name, file string, tasks int) []string

// hydra comes in by implicit TLS, or by STARTTLS where its option says TLS.
func hydra(option string) attacker {
	return func(t *testing.T, w *warden, name, file string, tasks int) []string {
		argv := []string{"hydra", "-I", "-t", strconv.Itoa(tasks), "-l", name, "-P", file}
		if strings.HasPrefix(option, "TLS:") {
			return append(argv, "-s", port(t, w.starttls), home, "imap", option)
		}
		return append(argv, "-S", "-s", port(t, w.implicit), home, "imap", option)
	}
}

// medusa comes in by implicit TLS.
func medusa(option ...string) attacker {
	return func(t *testing.T, w *warden, name, file string, tasks int) []string {
		argv := []string{"medusa", "-M", "imap", "-s", "-n", port(t, w.implicit), "-h", home, "-u", name, "-P", file, "-t", strconv.Itoa(tasks)}
		return append(argv, option...)
	}
}

// finds lets the attacker try a list of so many passwords, in which the account's own has that place,
// counted from 1, and says whether it reports that.
func (by attacker) finds(t *testing.T, w *warden, a *account, length, place, tasks int) bool {
	t.Helper()
	var list strings.Builder
	for i := range length {
		password := a.password
		if i+1 != place {
			password = known.add(anyPassword())
		}
		fmt.Fprintln(&list, password)
	}
	file := filepath.Join(t.TempDir(), "passwords")
	write(t, file, list.String())
	argv := by(t, w, a.name, file, tasks)
	if err := findPrograms(argv[0]); err != nil {
		t.Fatal(err)
	}
	out := runProgram(t, "", append([]string{"env", "--chdir", t.TempDir()}, argv...)...) // hydra leaves files where it runs
	return regexp.MustCompile(`(?m)^(\[\d+\]\[imap\] host|ACCOUNT FOUND): .*[Pp]assword: ` + regexp.QuoteMeta(a.password)).MatchString(out)
}

// asked returns how many attempts on the account Dovecot has met: wrong passwords, and right ones.
func (d *dovecot) asked(t *testing.T, a *account) (wrong, right int) {
	t.Helper()
	wrong = d.refusals(t, a) // all that was before is in the log then
	login := regexp.MustCompile(`imap-login: Info: Login: user=<` + regexp.QuoteMeta(a.name) + `>`)
	return wrong, len(login.FindAllString(mustRead(t, d.log()), -1))
}

// reasons counts the account's logins by why they were refused; those that weren't as "".
func (w *warden) reasons(a *account) map[string]int {
	w.t.Helper()
	n := map[string]int{}
	for _, e := range w.events(a) {
		if e.Kind == "login" {
			n[e.Reason]++
		}
	}
	return n
}

// patientLimits let attackers go on at their own pace, to save time, and don't forgive them: how long
// a test takes changes nothing. What an address may fail in a minute is out of the way, or else it
// would depend on that which limit comes first.
const patientLimits = `
[limits]
observe = ["tarpit"]
address_per_minute = 1000
account_penalty = "1h"
`

// Whoever needs a second factor isn't found out, wherever in the list the right password stands:
// early, it is right and not enough; late, it isn't looked at.
func TestAttackersDontFindTheEnrolled(t *testing.T) {
	t.Parallel()
	const length = accountFailures + 3
	for name, test := range map[string]struct {
		by    attacker
		place int
	}{
		"hydra, LOGIN, first":           {hydra("CLEAR"), 1},
		"hydra, AUTHENTICATE, middle":   {hydra("PLAIN"), length / 2},
		"hydra, STARTTLS, last":         {hydra("TLS:LOGIN"), length},
		"medusa, its own choice, first": {medusa(), 1},
		"medusa, AUTHENTICATE, middle":  {medusa("-m", "AUTH:PLAIN"), length / 2},
		"medusa, LOGIN, last":           {medusa("-m", "AUTH:LOGIN"), length},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := startWarden(t, settings{more: patientLimits})
			a := w.enrolled(anyPassword())
			if test.by.finds(t, w, a, length, test.place, 1) {
				t.Error("the password was found")
			}
			want := map[string]int{"wrong-password": accountFailures, "account-limit": 1} // what a limit refuses is counted together
			if test.place <= accountFailures {
				want["wrong-password"]--
				want["no-code"] = 1
			}
			if diff := cmp.Diff(want, w.reasons(a)); diff != "" {
				t.Errorf("why the audit says that logins were refused (-want +got):\n%s", diff)
			}
			if wrong, right := w.upstream.asked(t, a); wrong != want["wrong-password"] || right != want["no-code"] {
				t.Errorf("Dovecot was asked about %d wrong passwords, and the right one %d times", wrong, right)
			}
		})
	}
}

// Where the password alone is enough, limits are all that there is: a password among the first that
// an attacker tries is found. That is what mfa.mode = "optional" means for who hasn't enrolled,
// and no success of ours. One that stands behind the limit isn't.
func TestAttackersAgainstThePasswordAlone(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]attacker{"hydra": hydra("CLEAR"), "medusa": medusa()} {
		for place, found := range map[int]bool{3: true, accountFailures + 1: false} {
			t.Run(fmt.Sprintf("%s, %d", name, place), func(t *testing.T) {
				t.Parallel()
				w := startWarden(t, settings{mode: "optional", more: patientLimits})
				a := w.upstream.newAccount(t, anyPassword())
				if got := by.finds(t, w, a, accountFailures+1, place, 1); got != found {
					t.Errorf("the password was found: %t", got)
				}
				if wrong, right := w.upstream.asked(t, a); wrong != min(place-1, accountFailures) || (right > 0) != found {
					t.Errorf("Dovecot was asked about %d wrong passwords, and the right one %d times", wrong, right)
				}
			})
		}
	}
}

// Without limits on addresses and accounts, as if each attempt came from elsewhere and was for
// another account: what nobody can sign in with doesn't reach Dovecot, but for a trickle.
func TestTheUpstreamIsSpared(t *testing.T) {
	t.Parallel()
	const length = 35
	w := startWarden(t, settings{more: `
[limits]
observe = ["tarpit"]
address_per_minute = 1000
address_per_day = 1000
account_failures = 1000
`})
	var attackers sync.WaitGroup
	accounts := []*account{w.enrolled(anyPassword()), w.enrolled(anyPassword())}
	for i, by := range []attacker{hydra("PLAIN"), medusa("-m", "AUTH:LOGIN")} {
		attackers.Go(func() {
			if by.finds(t, w, accounts[i], length, length, 4) {
				t.Error("a password was found")
			}
		})
	}
	attackers.Wait()
	asked, unproved := 0, 0
	for _, a := range accounts {
		wrong, right := w.upstream.asked(t, a)
		if asked += wrong; right > 0 {
			t.Error("Dovecot was asked about the right password, at the end of a list")
		}
		unproved += w.reasons(a)["unproved"]
	}
	// On a busy machine medusa gives some of its list up.
	if asked < unprovedAsked-5 || asked > unprovedAsked || unproved < length || asked+unproved > 2*length {
		t.Errorf("of %d passwords Dovecot was asked about %d; %d were refused without", 2*length, asked, unproved)
	}
}

// loginFrom signs in by a load balancer that says where its client is.
func (w *warden) loginFrom(from, balancer, name, password string) reply {
	w.t.Helper()
	tcp := dialTCP(w.t, home, balancer)
	defer tcp.Close()
	client, local := netip.AddrPortFrom(netip.MustParseAddr(from), 40000), netip.MustParseAddrPort("192.0.2.1:993")
	header := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(client), net.TCPAddrFromAddrPort(local))
	if _, err := header.WriteTo(tcp); err != nil {
		w.t.Fatal(err)
	}
	c := newConn(w.t, tls.Client(tcp, shared.clients.believe()))
	c.greeting()
	return loginQuoted(c, name, password)
}

// spray tries one password on all accounts, each from a network of its own, and some at once as soon
// as it must be noticed. All must be refused alike.
func (w *warden) spray(balancer string, names []string, password string) {
	w.t.Helper()
	try := func(i int) {
		from := fmt.Sprintf("198.%d.%d.7", 18+i/256, i%256)
		if r := w.loginFrom(from, balancer, names[i], password); r.line != "NO [AUTHENTICATIONFAILED] Authentication failed" {
			w.t.Errorf("attempt %d: %s", i, r.line)
		}
	}
	for i := range sprayedAfter {
		try(i)
	}
	next := make(chan int)
	var sprayers sync.WaitGroup
	for range 16 {
		sprayers.Go(func() {
			for i := range next {
				try(i)
			}
		})
	}
	for i := sprayedAfter; i < len(names); i++ {
		next <- i
	}
	close(next)
	sprayers.Wait()
}

// One password on 300 accounts from 300 networks, none of which does anything that would be noticed by
// itself.
func TestSpray(t *testing.T) {
	t.Parallel()
	for mode, atMost := range map[string]int{"required": unprovedAsked, "optional": sprayedAfter + unprovedAsked} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			balancer := mustAddress(t)
			w := startWarden(t, settings{mode: mode, more: fmt.Sprintf(`
[[listener]]
address = %q
tls     = "implicit"
trusted_proxies = ["127.0.0.1/32"]
`, balancer)})
			sprayed := anyPassword()
			careless, careful := w.enrolled(sprayed), w.enrolled(anyPassword())
			w.accepts(careless, home, careless.withCode(t))
			w.accepts(careful, home, careful.withCode(t))
			unenrolled := w.upstream.newAccount(t, sprayed)
			var names []string
			for range 298 {
				names = append(names, randomLetters(10)+"@example.test")
			}
			w.spray(balancer, append(names, careless.name, careful.name), sprayed)

			// It is right, and the mode asks for no more.
			if r := w.loginFrom("198.51.100.7", balancer, unenrolled.name, sprayed); !r.is("NO [AUTHENTICATIONFAILED]") {
				t.Errorf("the password that is sprayed, where it is right: %s", r.line)
			}
			if wrong, right := w.upstream.asked(t, unenrolled); wrong+right > 0 {
				t.Error("Dovecot was asked about it")
			}
			asked := 0
			for log, i := mustRead(t, w.upstream.log()), 0; i < len(names); i++ {
				if strings.Contains(log, names[i]) {
					asked++
				}
			}
			if asked < sprayedAfter || asked > atMost {
				t.Errorf("Dovecot was asked %d times of %d, want %d at most", asked, len(names), atMost)
			}
			w.ownersAfterSpray(careless, careful)
			w.tellsOfSpray(careless, careful)
			w.bansOneNetwork(balancer, careful)
		})
	}
}

// ownersAfterSpray: the one whose password it is needs a code at home too, and nobody else does.
func (w *warden) ownersAfterSpray(careless, careful *account) {
	w.t.Helper()
	w.accepts(careful, home, careful.password).holdsMailOf(careful)
	c, r := w.login(careless, home, careless.password)
	c.Close()
	if !r.is("NO [AUTHENTICATIONFAILED]") || !r.has("* NO [ALERT] Second factor needed") {
		w.t.Errorf("a grant and the password that is sprayed: %s after %q", r.line, r.untagged)
	}
	if e := w.lastLogin(careless); e.Reason != "no-code" || e.Rule != "password-sprayed" {
		w.t.Errorf("the audit says %q, by %q", e.Reason, e.Rule)
	}
	w.accepts(careless, home, careless.withCode(w.t)).holdsMailOf(careless)
}

// tellsOfSpray checks what an administrator finds.
func (w *warden) tellsOfSpray(careless, careful *account) {
	w.t.Helper()
	alerts := map[string]string{} // reasons by account
	for _, e := range lines[event](w, "audit", "--limit", "1000") {
		if e.Kind == "alert" && e.Rule == "password-sprayed" {
			alerts[e.Account] = e.Reason
		}
	}
	if diff := cmp.Diff(map[string]string{"": "", careless.name: "right-password"}, alerts); diff != "" {
		w.t.Errorf("alerts of a sprayed password (-want +got):\n%s", diff)
	}
	type usage struct {
		Account      string
		WeakPassword string `json:"weak_password"`
	}
	passwords := map[string]string{}
	for _, u := range lines[usage](w, "report") {
		passwords[u.Account] = u.WeakPassword
	}
	if diff := cmp.Diff(map[string]string{careless.name: "password-sprayed", careful.name: ""}, passwords); diff != "" {
		w.t.Errorf("report says of passwords (-want +got):\n%s", diff)
	}
	if text := string(w.command("report")); !strings.Contains(text, careless.name+": it is tried on many accounts") {
		w.t.Errorf("report doesn't say whose password is tried:\n%s", text)
	}
	w.explains(careful, "198.18.7.7", "isn't familiar with that network", "so the upstream isn't asked", "password and a code: accepted")
	if list := lines[ban](w, "ban", "list"); len(list) > 0 {
		w.t.Errorf("networks from which one account was tried are banned: %+v", list)
	}
}

// bansOneNetwork has one try accounts that nobody knows.
func (w *warden) bansOneNetwork(balancer string, owner *account) {
	w.t.Helper()
	const from = "203.0.113.9"
	for range 5 {
		w.loginFrom(from, balancer, randomLetters(10)+"@example.test", known.add(anyPassword()))
	}
	list := lines[ban](w, "ban", "list")
	if len(list) != 1 || list[0].Network != "203.0.113.0/24" || list[0].Signal != "network-unknown" {
		w.t.Errorf("banned are %+v", list)
	}
	if r := w.loginFrom(from, balancer, owner.name, owner.withRecovery(w.t)); !r.is("NO [UNAVAILABLE]") {
		w.t.Errorf("from a banned network: %s", r.line)
	}
	if e := w.lastLogin(owner); e.Reason != "banned" {
		w.t.Errorf("from a banned network, the audit says %q", e.Reason)
	}
	w.explains(owner, from, "203.0.113.0/24 is banned until")
}

// A ban is what tests look at of those that ban list --json has.
type ban struct {
	Network, Signal string
	Since, Until    time.Time
	Times           int
}

// bans returns those in force, as the store has them: to the microsecond.
func (w *warden) bans() (list []ban) {
	w.t.Helper()
	for _, b := range lines[ban](w, "ban", "list") {
		b.Since, b.Until = b.Since.Truncate(time.Microsecond), b.Until.Truncate(time.Microsecond)
		list = append(list, b)
	}
	return list
}

// keepsBans waits until the store has so many bans: they are on their way for a moment.
func (w *warden) keepsBans(want int) {
	w.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "imapwarden.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	got := 0
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if err := db.QueryRow("SELECT count(*) FROM bans").Scan(&got); err != nil {
			w.t.Fatal(err)
		}
		if got == want {
			return
		}
	}
	w.t.Fatalf("the store has %d bans, want %d", got, want)
}

// Who tries an account that nobody has is banned, also by the next server. Who is at home there doesn't
// notice, and an administrator can end it.
func TestDecoy(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{more: `
[limits]
decoys = ["backup*@example.test"]
`})
	decoy, stranger, resident := &account{name: "backup1@example.test"}, w.enrolled(anyPassword()), w.enrolled(anyPassword())
	w.accepts(resident, elsewhere, resident.withCode(t))
	w.rejects(decoy, elsewhere, known.add(anyPassword()), "decoy-account")
	list := w.bans()
	if len(list) != 1 || list[0].Network != elsewhere+"/32" || list[0].Signal != "decoy-account" || list[0].Times != 1 {
		t.Errorf("banned are %+v", list)
	}
	if e := w.events(decoy)[0]; e.Kind != "alert" || e.Rule != "decoy-account" || e.Source != elsewhere {
		t.Errorf("the audit says %+v", e)
	}
	if w.upstream.heardOf(t, decoy) {
		t.Error("Dovecot was asked about a decoy")
	}

	w.keepsBans(1)
	w.kill()
	w.start()
	if diff := cmp.Diff(list, w.bans()); diff != "" {
		t.Errorf("bans after a restart (-before +after):\n%s", diff)
	}
	if _, r := w.login(stranger, elsewhere, stranger.withCode(t)); !r.is("NO [UNAVAILABLE]") {
		t.Errorf("from a banned address: %s", r.line)
	}
	if e := w.lastLogin(stranger); e.Reason != "banned" {
		t.Errorf("from a banned address, the audit says %q", e.Reason)
	}
	w.accepts(resident, elsewhere, resident.password).holdsMailOf(resident)
	w.command("ban", "remove", elsewhere)
	if list := w.bans(); len(list) > 0 {
		t.Errorf("removed, and banned are %+v", list)
	}
	w.accepts(stranger, elsewhere, stranger.withRecovery(t)).holdsMailOf(stranger)
}

// A phone that nobody has told of a new password costs its owner one failure of a day's, from the
// owner's address and from another one there.
func TestStalePhone(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	w.accepts(a, home, a.withCode(t))
	stale := known.add(anyPassword())
	for from, costs := range map[string]string{home: "1 of 50 today", "127.0.0.77": "1 of 10 today"} {
		var phones sync.WaitGroup
		for range 10 { // or else it takes Dovecot half a second for each
			phones.Go(func() {
				for range 10 {
					if answer, err := tryLogin(from, w.implicit, a.name, stale); err != nil || !strings.HasPrefix(answer, "NO [AUTHENTICATIONFAILED]") {
						t.Errorf("a stale password from %s: %s, %v", from, answer, err)
					}
				}
			})
		}
		phones.Wait()
		w.explains(a, from, costs)
	}
	w.accepts(a, home, a.password)
	w.accepts(a, "127.0.0.77", a.password).holdsMailOf(a)
	var e struct {
		Limits struct {
			AccountFailures   int `json:"account_failures"`
			AddressLeftMinute int `json:"address_left_minute"`
		}
	}
	if err := json.Unmarshal(w.command("explain", "--account", a.name, "--source", home, "--json"), &e); err != nil || e.Limits.AccountFailures != 0 || e.Limits.AddressLeftMinute < 9 {
		t.Errorf("the limits of others are used up: %+v, %v", e.Limits, err)
	}
}

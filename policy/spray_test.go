package policy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// alerts gathers what a Gate tells.
type alerts struct{ list []Alert }

func (a *alerts) add(one Alert) { a.list = append(a.list, one) }

func (a *alerts) of(signal string) (list []Alert) {
	for _, one := range a.list {
		if one.Signal == signal {
			list = append(list, one)
		}
	}
	return list
}

// watchful returns a Gate whose alerts are gathered.
func watchful(l Limits) (*Gate, *alerts) {
	g, a := calm(l), new(alerts)
	g.Alert = a.add
	return g, a
}

// failAs makes one failing attempt that brings nothing beside its password.
func failAs(g *Gate, at Attempt, f Failure) Decision {
	d, trial := g.Begin(at)
	if trial == nil {
		return d
	}
	defer trial.Release()
	w := trial.Weigh(context.Background(), Nothing)
	f.Password = at.Secret
	trial.Failed(f)
	return d.with(w)
}

func TestManyAccountsBanANetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, told := watchful(Limits{AddressPerMinute: 1000, AddressPerDay: 1000})
		guesser := netip.MustParseAddr("192.0.2.1")
		bed := netip.MustParseAddr("192.0.2.200")
		g.Acquaint(password(bed, "owner"))
		want := 10 * time.Minute
		for range 6 { // 10, 20, 40, 80, 160, 180 minutes
			for i := range 11 {
				if d := fail(g, guesser, fmt.Sprint("user", i), fmt.Sprint(time.Now(), i)); d.Signal == Banned {
					t.Fatalf("banned by account %d", i)
				}
			}
			d := ask(g, guesser.Next(), "somebody")
			if d.Signal != Banned || d.Wait != want {
				t.Fatalf("%+v, want a ban of the network for %s", d, want)
			}
			signIn(t, g, bed, "owner") // others' guesses don't lock the owner out
			if d := ask(g, netip.MustParseAddr("192.0.3.1"), "somebody"); !d.Allowed {
				t.Fatalf("the next network: %+v", d)
			}
			time.Sleep(want)
			if d := ask(g, guesser, "somebody"); !d.Allowed {
				t.Fatalf("after the ban: %+v", d)
			}
			want = min(2*want, 3*time.Hour)
			time.Sleep(31 * time.Minute) // what failed before is over
		}
		if n := len(told.of(NetworkAccounts)); n != 6 {
			t.Errorf("%d alerts, want one for each ban", n)
		}
		time.Sleep(25 * time.Hour)
		for i := range 11 {
			fail(g, guesser, fmt.Sprint("user", i), fmt.Sprint("later", i))
		}
		if d := ask(g, guesser, "somebody"); d.Wait != 10*time.Minute {
			t.Errorf("after a quiet day: %+v", d)
		}
	})
}

func TestUnknownAccountsBanANetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, told := watchful(Limits{})
		g.Acquaint(password(atHome, "alice"))
		for i := range 4 {
			failAs(g, password(hotel, fmt.Sprint("nobody", i)), Failure{Unknown: true})
		}
		failAs(g, password(hotel, "alice"), Failure{Unknown: true}) // no record of her, and yet she signs in
		if d := ask(g, hotel, "bob"); !d.Allowed {
			t.Fatalf("after four: %+v", d)
		}
		failAs(g, password(hotel, "nobody5"), Failure{Unknown: true})
		if d := ask(g, hotel, "bob"); d.Signal != Banned || len(told.of(NetworkUnknown)) != 1 {
			t.Errorf("after five: %+v, %v", d, told.list)
		}
	})
}

// Where many sign in, many may fail: an office, a carrier's one address for a city.
func TestNAT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := watchful(Limits{})
		for i := range 100 {
			signIn(t, g, hotel, fmt.Sprint("guest", i))
		}
		e := g.Explain(password(hotel, "alice"))
		if e.AddressPerMinute < 25 || e.AddressPerMinute > 45 || e.AddressPerDay-e.AddressPerMinute != 40 {
			t.Errorf("with 100 accounts: %d a minute, %d a day", e.AddressPerMinute, e.AddressPerDay)
		}
		for i := range 25 {
			if d := failAs(g, password(hotel, fmt.Sprint("new", i)).with(fmt.Sprint(i)), Failure{}); d.Signal == Banned || d.Signal == AddressLimit {
				t.Fatalf("failure %d: %+v", i, d)
			}
		}
		time.Sleep(49 * time.Hour)
		if e := g.Explain(password(hotel, "alice")); e.AddressPerMinute != 10 {
			t.Errorf("two days later: %d a minute", e.AddressPerMinute)
		}
	})
}

func TestSprayedPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, told := watchful(Limits{})
		const sprayed = "Winter2026!"
		bed := password(atHome, "owner").with(sprayed)
		_, trial := try(g, bed)
		trial.Succeeded(bed.Secret)
		for i := range 5 {
			at := password(address(i), fmt.Sprint("user", i)).with(sprayed)
			if d, trial := g.Begin(at); d.Demand != DemandNothing {
				t.Fatalf("attempt %d: %+v", i, d)
			} else {
				trial.Release()
			}
			for range 3 { // one account is one account
				failAs(g, at, Failure{})
			}
		}
		d, trial := g.Begin(password(address(50), "another").with(sprayed))
		if d.Demand != DemandFreshCode || d.Why != PasswordSprayed {
			t.Errorf("the sixth account: %+v", d)
		}
		trial.Release()
		if d, _ := g.Begin(bed); d.Demand != DemandFreshCode {
			t.Errorf("whose password it is, at home: %+v", d)
		}
		withCode := password(address(51), "another").with(sprayed + "123456")
		withCode.Front = []byte(sprayed)
		if d, _ := g.Begin(withCode); d.Demand != DemandFreshCode {
			t.Errorf("with a code behind it: %+v", d)
		}
		if d, _ := g.Begin(password(atHome, "owner").with("another")); d.Demand != DemandNothing {
			t.Errorf("another password: %+v", d)
		}
		list := told.of(PasswordSprayed)
		if len(list) != 2 || list[1].Account != "owner" || !list[1].Right {
			t.Errorf("told: %+v", list)
		}

		// When it is right for somebody later on, that is told too.
		_, trial = g.Begin(password(address(52), "victim").with(sprayed))
		trial.Failed(Failure{Password: []byte(sprayed), Right: true})
		if list := told.of(PasswordSprayed); len(list) != 3 || list[2].Account != "victim" || !list[2].Right {
			t.Errorf("told: %+v", list)
		}
		time.Sleep(25 * time.Hour)
		if d, _ := g.Begin(bed); d.Demand != DemandNothing {
			t.Errorf("a day after the last attempt: %+v", d)
		}
	})
}

// One account an hour is seen as well: eight in a day. It is known over midnight, when the key changes.
func TestSlowSpray(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, told := watchful(Limits{})
		time.Sleep(20 * time.Hour)
		for i := range 8 {
			if len(told.list) > 0 {
				t.Fatalf("told after %d", i)
			}
			failAs(g, password(address(i), fmt.Sprint("user", i)).with("Winter2026!"), Failure{})
			time.Sleep(time.Hour)
		}
		if len(told.of(PasswordSprayed)) != 1 {
			t.Errorf("told: %+v", told.list)
		}
	})
}

func TestManyNetworksOneAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, told := watchful(Limits{})
		g.Acquaint(password(atHome, "alice"))
		for i := range 7 {
			if d := ask(g, hotel, "alice"); d.Demand != DemandNothing {
				t.Fatalf("after %d failures: %+v", i, d)
			}
			failAs(g, password(address(i), "alice").with(fmt.Sprint(i)), Failure{})
		}
		if d := ask(g, hotel, "alice"); d.Demand != DemandFactor || d.Why != AccountNetworks {
			t.Errorf("a stranger: %+v", d)
		}
		if d := ask(g, atHome, "alice"); d.Demand != DemandNothing {
			t.Errorf("the owner at home: %+v", d)
		}
		if list := told.of(AccountNetworks); len(list) != 1 || list[0].Account != "alice" {
			t.Errorf("told: %+v", list)
		}
		time.Sleep(time.Hour)
		if d := ask(g, hotel, "alice"); d.Demand != DemandNothing {
			t.Errorf("an hour later: %+v", d)
		}
	})
}

func TestDecoys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, told := watchful(Limits{Decoys: []string{"backup", "test*"}, Trusted: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}})
		if d, trial := g.Begin(password(hotel, "testing")); d.Signal != DecoyAccount || trial != nil {
			t.Errorf("a decoy: %+v", d)
		}
		if d := ask(g, hotel, "alice"); d.Signal != Banned {
			t.Errorf("afterwards: %+v", d)
		}
		if d := ask(g, hotel.Next(), "alice"); !d.Allowed {
			t.Errorf("next door: %+v", d)
		}
		monitor := netip.MustParseAddr("10.9.1.1")
		g.Begin(password(monitor, "backup"))
		if d := ask(g, monitor, "alice"); !d.Allowed {
			t.Errorf("a trusted network: %+v", d)
		}
		if list := told.of(DecoyAccount); len(list) != 2 || list[0].Account != "testing" || list[0].Network != netip.PrefixFrom(hotel, 32) || list[1].Network.IsValid() {
			t.Errorf("told: %+v", list)
		}
	})
}

func TestTarpit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := watchful(Limits{TarpitPlaces: 1})
		var kept *Trial
		for i, want := range []time.Duration{2, 4, 8, 15, 15} {
			_, trial := g.Begin(password(hotel, "alice").with(fmt.Sprint(i)))
			trial.Failed(Failure{})
			if got := trial.Tarpit(); got != want*time.Second {
				t.Errorf("failure %d: %s, want %d s", i+1, got, want)
			}
			if kept = trial; i < 4 {
				kept.Release()
			}
		}
		if d, _ := g.Begin(password(hotel, "bob")); d.Signal != TarpitBusy || !d.busy {
			t.Errorf("while one is kept waiting: %+v", d)
		}
		fail(g, atHome, "bob", "1")
		_, trial := g.Begin(password(atHome, "bob").with("2"))
		trial.Failed(Failure{})
		if trial.Tarpit() != 2*time.Second {
			t.Errorf("there is one place, and it is taken: %s", trial.Tarpit())
		}
		trial.Release()
		began := time.Now()
		time.AfterFunc(15*time.Second, kept.Release)
		if d, trial := g.Await(t.Context(), password(hotel, "bob")); !d.Allowed || time.Since(began) != 15*time.Second {
			t.Errorf("%+v after %s", d, time.Since(began))
		} else {
			trial.Succeeded(nil) // and the row is over
		}
		_, trial = g.Begin(password(hotel, "carol"))
		trial.Failed(Failure{})
		if trial.Tarpit() != 2*time.Second {
			t.Errorf("after a success: %s", trial.Tarpit())
		}
		trial.Release()
		if n := g.tarpit.places.Load(); n != 0 {
			t.Errorf("%d places taken", n)
		}
	})
}

// However many addresses strangers have, the upstream is shown few of their passwords.
func TestStrangersShareABudget(t *testing.T) {
	for _, tt := range []struct {
		name     string
		evidence Evidence
		most     int // in a day: a full bucket, and what flows in
	}{
		{"what can't be let in anyway", Nothing, 20 + 24*5},
		{"where the password alone lets in", PasswordAlone, 30 + 24*30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var g Gate
				asked := 0
				for minute := range 24 * 60 {
					for i := range 7 {
						n := minute*7 + i
						d, trial := tryAs(&g, password(address(n), fmt.Sprint("user", n)).with(fmt.Sprint(n)), tt.evidence)
						if d.Allowed {
							asked++
							trial.failWith(fmt.Sprint(n))
						}
					}
					time.Sleep(time.Minute)
				}
				if asked > tt.most || asked < tt.most/2 {
					t.Errorf("the upstream was asked %d times in a day, want at most %d", asked, tt.most)
				}
			})
		})
	}
}

// An owner abroad brings a code, and others' guesses don't keep it from counting.
func TestOwnerAbroadWhileOthersGuess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := watchful(Limits{})
		for i := range 50 {
			fail(g, address(i), "alice", fmt.Sprint(i))
		}
		if d := ask(g, hotel, "alice"); d.Signal != AccountLimit {
			t.Fatalf("the password alone: %+v", d)
		}
		d, trial := tryAs(g, password(hotel, "alice"), RightCode)
		if !d.Allowed || d.Looks != AccountLimit {
			t.Fatalf("with a code: %+v", d)
		}
		trial.Succeeded(nil)
		if d := ask(g, hotel, "alice"); !d.Allowed {
			t.Errorf("from then on: %+v", d)
		}
	})
}

// Codes can't be guessed either: so many wrong ones a day, and none counts from new networks.
func TestGuessedCodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := watchful(Limits{})
		g.Acquaint(password(atHome, "alice"))
		for i := range 101 {
			_, trial := g.Begin(password(address(i), "alice").with(fmt.Sprint(i)))
			trial.Weigh(t.Context(), Nothing)
			trial.Failed(Failure{Code: true})
			trial.Release()
		}
		if d, _ := tryAs(g, password(hotel, "alice"), RightCode); d.Signal != AccountCodes {
			t.Errorf("a right code: %+v", d)
		}
		if d, _ := tryAs(g, password(hotel, "alice"), Granted); !d.Allowed {
			t.Errorf("a grant: %+v", d)
		}
		signIn(t, g, atHome, "alice")
	})
}

func TestAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, told := watchful(Limits{})
		hour := func(good, bad int) {
			for i := range good + bad {
				if i < good {
					signIn(t, g, atHome, fmt.Sprint("user", i))
				} else {
					failAs(g, password(address(i), fmt.Sprint("bad", i)).with(fmt.Sprint(time.Now(), i)), Failure{})
				}
				time.Sleep(time.Hour / time.Duration(good+bad))
			}
		}
		for range 48 {
			hour(90, 10)
		}
		if g.Alarmed() || len(told.of(MachineAlarm)) > 0 {
			t.Fatal("alarmed by what is usual")
		}
		hour(300, 500)
		if !g.Alarmed() || len(told.of(MachineAlarm)) != 1 {
			t.Errorf("alarmed %v: %+v", g.Alarmed(), told.of(MachineAlarm))
		}
		time.Sleep(11 * time.Minute)
		if g.Alarmed() {
			t.Error("alarmed when all is quiet again")
		}
	})
}

// fakeMemory is a Memory without a store.
type fakeMemory struct {
	bans  map[netip.Prefix]Ban
	homes []Home
	marks map[string]string

	mu  sync.Mutex
	err error
}

// fail makes it fail from now on, or not.
func (m *fakeMemory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *fakeMemory) state() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

func newFakeMemory() *fakeMemory {
	return &fakeMemory{bans: make(map[netip.Prefix]Ban), marks: make(map[string]string)}
}

func (m *fakeMemory) Bans(context.Context) (list []Ban, err error) {
	for _, b := range m.bans {
		list = append(list, b)
	}
	return list, m.state()
}

func (m *fakeMemory) PutBans(_ context.Context, bans ...Ban) error {
	for _, b := range bans {
		m.bans[b.Network] = b
	}
	return m.state()
}

func (m *fakeMemory) RemoveBans(_ context.Context, networks ...netip.Prefix) error {
	for _, n := range networks {
		delete(m.bans, n)
	}
	return m.state()
}

func (m *fakeMemory) Homes(_ context.Context, limit int) ([]Home, error) { return m.homes, m.state() }

func (m *fakeMemory) PutHomes(_ context.Context, homes ...Home) error {
	err := m.state()
	if err == nil {
		m.homes = append(m.homes, homes...)
	}
	return err
}

func (m *fakeMemory) PurgeMemory(_ context.Context, bans, homes time.Time) error { return m.state() }

func (m *fakeMemory) Mark(_ context.Context, name string) (string, error) {
	return m.marks[name], m.state()
}

func (m *fakeMemory) SetMark(_ context.Context, name, value string) error {
	m.marks[name] = value
	return m.state()
}

// A restart lets nobody in who was kept out, and keeps nobody out who was at home.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeMemory()
		start := func() (*Gate, func()) {
			g, _ := watchful(Limits{Decoys: []string{"backup"}})
			if err := g.Load(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- g.Run(ctx, func(error) {}) }()
			return g, func() {
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}
		g, stop := start()
		signIn(t, g, atHome, "alice")
		g.Begin(password(hotel, "backup"))
		synctest.Wait()
		if len(m.bans) != 1 {
			t.Error("a ban waits to be stored")
		}
		byHand := Ban{Network: netip.MustParsePrefix("203.0.112.0/24"), Signal: ByHand, Since: time.Now(), Until: time.Now().Add(24 * time.Hour), Times: 1}
		if err := g.Ban(t.Context(), byHand); err != nil {
			t.Fatal(err)
		}
		stop()

		g, stop = start()
		defer stop()
		if d := ask(g, hotel, "alice"); d.Signal != Banned {
			t.Errorf("a ban: %+v", d)
		}
		if !g.Knows(password(atHome, "alice")) || g.Knows(device(password(atHome, "alice"))) {
			t.Error("a home is forgotten, or of another kind")
		}
		list, err := g.Bans(t.Context())
		if err != nil || len(list) != 2 || !slices.Contains(list, byHand) {
			t.Errorf("%+v, %v", list, err)
		}
		if known, err := g.Unban(t.Context(), byHand.Network); !known || err != nil {
			t.Errorf("known %v, %v", known, err)
		}
		if known, _ := g.Unban(t.Context(), byHand.Network); known || len(m.bans) != 1 {
			t.Error("it is there still")
		}
	})
}

// What the store doesn't take is tried again, and nothing is lost by it.
func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeMemory()
		g, _ := watchful(Limits{})
		if err := g.Load(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		failed := 0
		ended := make(chan error, 1)
		m.fail(context.DeadlineExceeded)
		go func() { ended <- g.Run(ctx, func(error) { failed++ }) }()
		signIn(t, g, atHome, "alice")
		time.Sleep(time.Minute)
		synctest.Wait()
		if failed == 0 || len(m.homes) > 0 {
			t.Errorf("%d failures told, %d homes stored", failed, len(m.homes))
		}
		m.fail(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(m.homes) != 1 {
			t.Errorf("%d homes stored", len(m.homes))
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Who is banned isn't even let in by the door, unless somebody is at home there.
func TestBannedAtTheDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, _ := watchful(Limits{Decoys: []string{"backup"}})
		neighbour := atHome.Next()
		signIn(t, g, atHome, "alice")
		g.Begin(password(hotel, "backup"))
		g.Begin(password(neighbour, "backup"))
		heard := func(addr netip.Addr) (n int, d Decision) {
			for range 40 {
				var slot *Slot
				if d, slot = g.Admit(addr); d.Allowed {
					n++
				}
				slot.Release()
			}
			return n, d
		}
		if n, d := heard(hotel); n != 20 || d.Signal != Banned { // so many are told to wait
			t.Errorf("nobody's home: %d let in, then %+v", n, d)
		}
		if n, d := heard(neighbour); n != 40 {
			t.Errorf("somebody's home: %d let in, then %+v", n, d)
		}
		g.Ban(t.Context(), Ban{Network: netip.PrefixFrom(atHome, 32), Signal: ByHand, Until: time.Now().Add(time.Hour)})
		if n, _ := heard(atHome); n > 0 { // all of its network's were used by the neighbour
			t.Errorf("by hand: %d let in", n)
		}
		if d := ask(g, atHome, "alice"); d.Signal != Banned {
			t.Errorf("by hand, the account at home there: %+v", d)
		}
	})
}

// A ban by hand isn't hidden by one of a network within, and what is done by hand isn't undone by
// what waits to be stored.
func TestGateBansByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeMemory()
		g, _ := watchful(Limits{Decoys: []string{"backup"}, Trusted: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}})
		if err := g.Load(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		byHand := func(network string) Ban {
			return Ban{Network: netip.MustParsePrefix(network), Signal: ByHand, Since: time.Now(), Until: time.Now().Add(time.Hour), Times: 1}
		}
		g.Acquaint(password(atHome, "alice"))
		g.Begin(password(atHome, "backup"))
		g.Ban(t.Context(), byHand("198.51.96.0/20"))
		if d := ask(g, atHome, "alice"); d.Signal != Banned {
			t.Errorf("within a network banned by hand: %+v", d)
		}
		g.Begin(password(hotel, "backup"))
		for _, network := range []netip.Prefix{netip.PrefixFrom(hotel, 32), netip.PrefixFrom(atHome, 32)} {
			if known, err := g.Unban(t.Context(), network); !known || err != nil {
				t.Errorf("%s: known %v, %v", network, known, err)
			}
		}
		if err := g.store(t.Context()); err != nil || len(m.bans) != 1 {
			t.Errorf("%v, stored: %v", err, m.bans)
		}

		monitor := netip.MustParseAddr("10.9.1.1")
		g.Acquaint(password(monitor, "probe"))
		g.Ban(t.Context(), byHand("10.0.0.0/8"))
		for _, account := range []string{"probe", "another"} {
			if d := ask(g, monitor, account); !d.Allowed {
				t.Errorf("%s from a trusted network: %+v", account, d)
			}
		}
	})
}

func TestBansAreBounded(t *testing.T) {
	var b bans
	l := Limits{}.withDefaults()
	now := time.Now()
	network := func(n int) netip.Prefix { return netip.PrefixFrom(address(n), 24).Masked() }
	for i := range maxBans {
		if _, ok := b.add(network(i), NetworkAccounts, "", now, &l); ok != (i < maxBans-byHandRoom) {
			t.Fatalf("ban %d: %v", i, ok)
		}
	}
	if _, ok := b.find(address(0), now); !ok {
		t.Error("the first is gone")
	}
	later := now.Add(time.Hour)
	if _, ok := b.add(network(maxBans+1), NetworkAccounts, "", later, &l); !ok || len(b.known) > maxBans {
		t.Errorf("there is room when others are over: %v, %d known", ok, len(b.known))
	}
}

// customer is the n-th site of a provider's IPv6 network, 65,536 to each /48.
func customer(n int) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// Whoever has a network and knows a decoy gets all of it banned, and not all the room for bans.
func TestManyDecoysBanTheirNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeMemory()
		g, _ := watchful(Limits{Decoys: []string{"backup"}})
		if err := g.Load(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		touch := func(from, to int) {
			for i := from; i < to; i++ {
				g.Begin(password(customer(i), "backup"))
			}
			if err := g.store(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		networks := func() (list []netip.Prefix) {
			for _, b := range g.bans.list(time.Now()) {
				list = append(list, b.Network)
			}
			return list
		}
		touch(0, 7)
		if d := ask(g, customer(100), "alice"); !d.Allowed || len(networks()) != 7 {
			t.Errorf("after seven: %v, %+v", networks(), d)
		}
		time.Sleep(time.Minute)
		touch(7, maxBans)
		want := []netip.Prefix{netip.MustParsePrefix("2001:db8::/48"), netip.MustParsePrefix("2001:db8:1::/48")}
		if got := networks(); !slices.Equal(got, want) || len(m.bans) != 2 {
			t.Errorf("%v, %d stored, want %v", got, len(m.bans), want)
		}
		if d := ask(g, customer(70_000), "alice"); d.Signal != Banned || d.Wait != 10*time.Minute {
			t.Errorf("a neighbour: %+v", d)
		}
		time.Sleep(10 * time.Minute)
		touch(0, 8)
		if d := ask(g, customer(100), "alice"); d.Signal != Banned || d.Wait != 20*time.Minute {
			t.Errorf("the next time: %+v", d)
		}
	})
}

// However many bans a signal makes, there is room for others, and for those that an administrator makes.
func TestBansLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newFakeMemory()
		g, _ := watchful(Limits{Decoys: []string{"backup"}})
		if err := g.Load(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		touch := func(from int) {
			for i := from; i < from+decoyRoom+1000; i++ { // in as many networks
				g.Begin(password(customer(i<<16), "backup"))
			}
			if err := g.store(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		touch(0)
		if len(m.bans) != decoyRoom {
			t.Errorf("%d stored", len(m.bans))
		}
		for i := range 11 {
			fail(g, hotel, fmt.Sprint("user", i), fmt.Sprint(i))
			time.Sleep(5 * time.Second)
		}
		if d := ask(g, hotel, "alice"); d.Signal != Banned {
			t.Errorf("another signal: %+v", d)
		}
		l := g.limits
		for i := range maxBans {
			g.bans.add(netip.PrefixFrom(address(i), 24).Masked(), NetworkAccounts, "", time.Now(), &l)
		}
		if err := g.Ban(t.Context(), Ban{Network: netip.MustParsePrefix("203.0.113.0/24"), Signal: ByHand, Until: time.Now().Add(time.Hour)}); err != nil {
			t.Error(err)
		}
		time.Sleep(2 * time.Hour) // all are over
		touch(20_000)
		if len(m.bans) != len(g.bans.known) || len(m.bans) != decoyRoom {
			t.Errorf("%d stored, %d known", len(m.bans), len(g.bans.known))
		}
	})
}

// What a store has too many of it loses, but none by hand, and those that are over first.
func TestLoadIsBounded(t *testing.T) {
	now := time.Now()
	m := newFakeMemory()
	for i := range maxBans {
		ban := Ban{Network: netip.PrefixFrom(customer(i), 64), Signal: NetworkAccounts, Since: now, Until: now.Add(time.Hour), Times: 1}
		if i < byHandRoom+7 {
			ban.Until = now.Add(-time.Hour)
		}
		m.bans[ban.Network] = ban
	}
	byHand := Ban{Network: netip.MustParsePrefix("203.0.113.0/24"), Signal: ByHand, Since: now, Until: now.Add(time.Minute), Times: 1}
	m.bans[byHand.Network] = byHand
	g := &Gate{Now: func() time.Time { return now }}
	if err := g.Load(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := g.store(t.Context()); err != nil || len(m.bans) != maxBans-byHandRoom+1 {
		t.Errorf("%v, %d stored", err, len(m.bans))
	}
	if list := g.bans.list(now); len(list) != maxBans-byHandRoom-7+1 || !slices.Contains(list, byHand) {
		t.Errorf("%d in force", len(list))
	}
}

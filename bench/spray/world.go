package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

// A World is who there is, and where. What happens in it is made from its seed.
type World struct {
	Habits
	Seed     uint64
	Accounts []account
	Logins   []Login // of honest people, by time

	devices int32
}

// An account is a person with a mailbox.
type account struct {
	name      string
	passwords [versions]Secret
	changes   [versions]time.Duration // when each of them became the account's; the first always was
	enrolled  bool                    // in mode "optional"; in mode "required" all are
	home      place
	office    netip.Addr // zero: works at home
	carrier   int
	hotel     netip.Addr // zero: isn't travelling
}

// A place is a home, whose address may be another one every day.
type place struct {
	block int // of the provider's
	host  int
	ipv6  bool
	moves bool
}

// Where things are. The addresses mean nothing, but for their neighbourhoods.
var (
	homes4    = netip.MustParseAddr("24.0.0.0")
	homes6    = netip.MustParseAddr("2a02::")
	carriers4 = netip.MustParseAddr("37.0.0.0")
	offices4  = netip.MustParseAddr("62.0.0.0")
	hotels4   = netip.MustParseAddr("81.0.0.0")
	hosting4  = netip.MustParseAddr("45.0.0.0")
	others4   = netip.MustParseAddr("150.0.0.0")
	webmail   = netip.MustParseAddr("198.51.100.20")
)

// random is a generator of its own for each purpose, so that a change in one place doesn't
// change what happens in another.
func (w *World) random(purpose, number int) *rand.Rand {
	return rand.New(rand.NewPCG(w.Seed, uint64(purpose)<<32|uint64(uint32(number))))
}

// The purposes.
const (
	forPlaces = iota
	forDay
	forAttack
	forTargets
)

// NewWorld makes the accounts and all that honest people do.
func NewWorld(h Habits, seed uint64) *World {
	w := &World{Habits: h, Seed: seed, Accounts: make([]account, h.People)}
	w.people()
	w.live()
	return w
}

var officeSizes = []int{500, 250, 120, 60, 30, 15, 10}

func (w *World) people() {
	office, left := -1, 0
	for i := range w.Accounts {
		r := w.random(forPlaces, i)
		a := &w.Accounts[i]
		a.name = fmt.Sprintf("a%05d@example.org", i)
		for v := range a.passwords {
			a.passwords[v], a.changes[v] = owned+Secret(i*versions+v), never
		}
		a.changes[0] = -never
		if r.Float64() < w.WeakPasswords {
			a.passwords[0] = weak(r)
		}
		a.enrolled = r.Float64() < w.Enrolled
		a.carrier = r.IntN(w.Carriers)
		a.home = place{
			block: r.IntN(max(1, w.People/w.HomesPerBlock)), host: 1 + r.IntN(250),
			ipv6: r.Float64() < w.IPv6Homes, moves: r.Float64() < w.HomeMoves,
		}
		if r.Float64() < w.Travellers {
			a.hotel = nth(hotels4, r.IntN(w.Hotels)<<8|1)
		}
		if float64(i) >= w.OfficeShare*float64(len(w.Accounts)) {
			continue // who comes first works in an office
		}
		if left == 0 {
			office++
			left = officeSizes[office%len(officeSizes)]
		}
		left--
		a.office = nth(offices4, office<<8|1)
	}
}

const never = 1000 * day

// weak picks one of the common passwords, as the n-th is 1/n as common as the first (Zipf).
func weak(r *rand.Rand) Secret {
	for {
		n := 1 + r.IntN(commonPasswords)
		if r.Float64() < 1/float64(n) {
			return Secret(n)
		}
	}
}

// password is the account's at a time.
func (a *account) password(at time.Duration) Secret {
	p := a.passwords[0]
	for v, since := range a.changes {
		if at >= since {
			p = a.passwords[v]
		}
	}
	return p
}

// isRight says whether the upstream would say yes to the login's password. An app password
// has one behind it.
func (w *World) isRight(l *Login) bool {
	switch {
	case l.Account < 0:
		return false
	case l.AppPassword:
		return l.Secret == appPassword+Secret(l.Device)
	}
	return l.Secret == w.Accounts[l.Account].password(l.At)
}

// name is what the login calls the account.
func (w *World) name(l *Login) string {
	if l.Account < 0 {
		return fmt.Sprintf("nobody%d@example.org", -l.Account)
	}
	return w.Accounts[l.Account].name
}

// at is the home's address on a day.
func (p place) at(w *World, day int) netip.Addr {
	block, host := p.block, p.host
	if p.moves {
		n := hash(uint64(block), uint64(host), uint64(day))
		block, host = int(n%uint64(max(1, w.People/w.HomesPerBlock))), 1+int(n>>32%250)
	}
	if p.ipv6 { // a /56 of a /48 that is shared with the neighbours
		b := homes6.As16()
		b[4], b[5], b[6], b[15] = byte(block>>8), byte(block), byte(host), 1
		return netip.AddrFrom16(b)
	}
	return nth(homes4, block<<8|host)
}

// gateway is the carrier's address through which a device comes for some hours.
func (w *World) gateway(carrier int, device int32, at time.Duration) netip.Addr {
	n := hash(uint64(carrier), uint64(device), uint64((at+never)/(4*time.Hour)))
	return w.gatewayNumber(carrier, int(n%uint64(w.CarrierBlocks*w.CarrierHosts)))
}

func (w *World) gatewayNumber(carrier, n int) netip.Addr {
	return nth(carriers4, (carrier*w.CarrierBlocks+n/w.CarrierHosts)<<8|1+n%w.CarrierHosts)
}

// nth is the address that lies n behind another.
func nth(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	b[1] += byte(n >> 16)
	b[2], b[3] = byte(n>>8), byte(n)
	return netip.AddrFrom4(b)
}

// hash mixes numbers into one that looks random (splitmix64's finish).
func hash(parts ...uint64) uint64 {
	h := uint64(0x9e3779b97f4a7c15)
	for _, p := range parts {
		h += p + 0x9e3779b97f4a7c15
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		h ^= h >> 31
	}
	return h
}

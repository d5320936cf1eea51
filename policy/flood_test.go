package policy

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// shrunk returns a Gate with tables of the real size, or where the race detector makes
// everything slow of a tenth of it.
func shrunk() *Gate {
	g := new(Gate)
	g.start()
	g.addresses = newTable[netip.Prefix](maxCached/shrink, maxHeld/shrink, countersIdle, g.addresses.fresh)
	g.accounts = newTable[string](maxCached/shrink, maxHeld/shrink, countersIdle, g.accounts.fresh)
	return g
}

// A flood of more new keys than the tables hold is forgotten in part, and nobody
// who is penalised gets free by it.
func TestFloodFreesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := shrunk()
		failures(t, g, hotel, "bob", 10)
		for i := range 10 {
			failures(t, g, address(i), "alice", 1)
		}
		away := address(77)
		_, flying := g.Begin(password(away, "carol"))
		signIn(t, g, atHome, "dave")
		for i := range 300_000 / shrink {
			var b [16]byte
			binary.BigEndian.PutUint64(b[:], 0x2001_0db8_0000_0000+uint64(i))
			_, trial := g.Begin(password(netip.AddrFrom16(b), fmt.Sprint("user", i)))
			trial.Failed([8]byte{})
		}
		if d := look(g, hotel, "erin"); d.Signal != AddressLimit {
			t.Errorf("penalised address: %+v", d)
		}
		if d := look(g, atHome, "alice"); d.Signal != AccountLimit {
			t.Errorf("penalised account: %+v", d)
		}
		g.addresses.with(SourceOf(away).Site(), time.Now(), func(e *addressEntry) {
			if e.flying.count != 1 {
				t.Errorf("%d attempts in flight, want 1", e.flying.count)
			}
		})
		flying.Release()
		if size := kept(g.addresses); size > (maxCached+maxHeld)/shrink {
			t.Errorf("%d addresses remembered", size)
		}
		if size := kept(g.accounts); size > (maxCached+maxHeld)/shrink {
			t.Errorf("%d accounts remembered", size)
		}
		if size := kept(g.familiar); size != 1 {
			t.Errorf("familiar networks of %d accounts, want 1: strangers made some", size)
		}
	})
}

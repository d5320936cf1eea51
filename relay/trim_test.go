package relay

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"testing"
	"unsafe"
)

// TestTrims fails where a Go version has changed crypto/tls: see trim.go.
func TestTrims(t *testing.T) {
	if !Trims() {
		t.Fatal("crypto/tls isn't the one that trim.go knows")
	}
	each(t, some3[1:], some3[1:], func(t *testing.T, p plan) {
		r := relayed(t, p)
		for range 3 {
			octets := noise(1, 200<<10)
			go r.client.Write(octets)
			read(t, r.upstream, len(octets))
			go r.upstream.Write(octets)
			read(t, r.client, len(octets))
		}
		eventually(t, "the idle session keeps no buffer", func() bool {
			return kept(t, r) == 0
		})
	})
}

// kept is the size of the input buffers of an idle session's connections.
func kept(t testing.TB, r *rig) (n int) {
	t.Helper()
	inspect(t, r, func() { n = capacity(r.Session.Client.TLS) + capacity(r.Session.Upstream.TLS) })
	return n
}

func capacity(c *tls.Conn) (n int) {
	if c == nil {
		return 0
	}
	v := reflect.ValueOf(c).Elem()
	for _, name := range []string{"rawInput", "hand"} {
		n += (*bytes.Buffer)(unsafe.Pointer(v.FieldByName(name).UnsafeAddr())).Cap()
	}
	if input := v.FieldByName("input").FieldByName("s"); input.Cap() > 0 {
		n += input.Cap()
	}
	return n
}

// TestTrimHalfRecord parks in the middle of a record, at each octet of one.
func TestTrimHalfRecord(t *testing.T) {
	each(t, some3[1:], some2[:1], func(t *testing.T, p plan) {
		r := relayed(t, p)
		var ciphertext bytes.Buffer
		r.client.gate.only(0)
		for at := 1; at < 90; at++ {
			octets := noise(byte(at), 60)
			ciphertext.Reset()
			r.client.gate.tap = &ciphertext
			write(t, r.client, octets)
			r.client.gate.tap = nil
			half := min(at, ciphertext.Len()-1)
			write(t, r.client.tcp, ciphertext.Bytes()[:half])
			eventually(t, "half a record is kept", func() bool { return kept(t, r) > 0 })
			write(t, r.client.tcp, ciphertext.Bytes()[half:])
			if err := same(read(t, r.upstream, len(octets)), octets); err != nil {
				t.Fatal(err)
			}
		}
	})
}

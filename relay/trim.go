package relay

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"sync"
	"unsafe"
)

// What an idle tls.Conn keeps: a buffer that has grown to the largest record that it read, and never
// shrinks, and one for handshake messages (golang/go#43563): some 4 KB, up to 40. crypto/tls
// gives no way to drop them, so we reach into it, where its fields are found by name and type;
// where they aren't, as another version of Go may have it, nothing is dropped.

// Trims says whether idle connections are made smaller; false where crypto/tls isn't
// the one that we know.
func Trims() bool { return fields().known }

type tlsFields struct {
	input, rawInput, hand uintptr // offsets in a tls.Conn
	known                 bool
}

var fields = sync.OnceValue(func() tlsFields {
	conn := reflect.TypeFor[tls.Conn]()
	input, ok1 := conn.FieldByName("input")
	rawInput, ok2 := conn.FieldByName("rawInput")
	hand, ok3 := conn.FieldByName("hand")
	buffer := reflect.TypeFor[bytes.Buffer]()
	if !ok1 || !ok2 || !ok3 || input.Type != reflect.TypeFor[bytes.Reader]() || rawInput.Type != buffer || hand.Type != buffer {
		return tlsFields{}
	}
	return tlsFields{input.Offset, rawInput.Offset, hand.Offset, true}
})

// trim drops the buffers of a connection that hold nothing. Only who reads from it may call it,
// and not during a Read.
func trim(c *tls.Conn) {
	f := fields()
	if c == nil || !f.known {
		return
	}
	at := unsafe.Pointer(c)
	input := (*bytes.Reader)(unsafe.Add(at, f.input))
	rawInput := (*bytes.Buffer)(unsafe.Add(at, f.rawInput))
	hand := (*bytes.Buffer)(unsafe.Add(at, f.hand))
	if input.Len() == 0 && rawInput.Len() == 0 {
		input.Reset(nil) // it points into rawInput's array
		*rawInput = bytes.Buffer{}
	}
	if hand.Len() == 0 {
		*hand = bytes.Buffer{}
	}
}

package imap

import (
	"bytes"
	"strings"
)

// internalID are the ID fields by which proxies tell servers about a client (Dovecot
// believes them from login_trusted_networks). From a client they are forgeries.
var internalID = []string{
	"x-originating-", "x-connected-", "x-proxy-ttl", "x-session-", "x-forward-",
	"x-client-transport", "x-multiplex",
}

func isInternalID(name string) bool {
	name = strings.ToLower(name)
	for _, prefix := range internalID {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// cleanID returns ID's argument without internal fields, encoded anew, and the client's name
// and version of these. What it can't read, literals among it, becomes NIL, and ok is false:
// ID must never fail by accident.
func cleanID(argument []byte) (fields []byte, said map[string]string, ok bool) {
	d := NewDecoder(bytes.NewReader(append(bytes.Clone(argument), "\r\n"...)))
	d.Continue = func() error { return ErrUnfollowable }
	if d.Await() != nil {
		return []byte("NIL"), nil, false
	}
	d.AllowLiterals(0)
	said = make(map[string]string, 2)
	var kept [][]byte
	err := d.idFields(func(name, value []byte) {
		n, ok1 := Quote(name)
		v, ok2 := Quote(value)
		if value == nil {
			v, ok2 = []byte("NIL"), true
		}
		if ok1 && ok2 && !isInternalID(string(name)) {
			kept = append(kept, append(append(n, ' '), v...))
		}
		if name := strings.ToLower(string(name)); name == "name" || name == "version" {
			said[name] = string(value[:min(len(value), 100)])
		}
	})
	if err != nil || len(kept) == 0 {
		return []byte("NIL"), nil, err == nil
	}
	return append(append([]byte("("), bytes.Join(kept, []byte(" "))...), ')'), said, true
}

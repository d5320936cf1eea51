package imap

import (
	"strings"

	"github.com/emersion/go-imap/v2"
)

// Capabilities is a list of capabilities in the order in which a server named them.
type Capabilities []imap.Cap

// ParseCapabilities reads what stands behind CAPABILITY in a response or a code.
func ParseCapabilities(s string) Capabilities {
	var list Capabilities
	for _, f := range strings.Fields(s) {
		list = append(list, imap.Cap(f))
	}
	return list
}

// Has compares as RFC 9051, section 6.1.1 asks: without regard to case.
func (l Capabilities) Has(c imap.Cap) bool {
	for _, have := range l {
		if strings.EqualFold(string(have), string(c)) {
			return true
		}
	}
	return false
}

func (l Capabilities) String() string {
	words := make([]string, len(l))
	for i, c := range l {
		words[i] = string(c)
	}
	return strings.Join(words, " ")
}

// AfterLogin is what a client is told of the upstream's list: all of it but what belongs
// to the time before login or would undo it (UNAUTHENTICATE, RFC 8437), and compression,
// which would hide the commands from us.
func (l Capabilities) AfterLogin() Capabilities {
	var kept Capabilities
	for _, c := range l {
		switch u := imap.Cap(strings.ToUpper(string(c))); {
		case u == imap.CapStartTLS, u == imap.CapLoginDisabled, u == imap.CapSASLIR, u == imap.CapUnauthenticate:
		case strings.HasPrefix(string(u), "AUTH="), strings.HasPrefix(string(u), "COMPRESS="):
		case !clean(string(c)):
		default:
			kept = append(kept, c)
		}
	}
	return kept
}

// clean keeps an upstream from putting brackets or control characters into our OK.
func clean(c string) bool {
	for i := range len(c) {
		if !isAtomChar(c[i]) || c[i] == '[' {
			return false
		}
	}
	return c != ""
}

// What is offered before login is IMAP4rev1, for we don't know yet what the account's
// upstream speaks; its own list comes with the login's OK.

// BeforeTLS is what we offer on a connection that isn't secure yet (RFC 9051, section
// 11.1; RFC 8314): no way to send a password.
func BeforeTLS() Capabilities {
	return Capabilities{
		imap.CapIMAP4rev1, imap.CapID, imap.CapLiteralMinus,
		imap.CapStartTLS, imap.CapLoginDisabled,
	}
}

// BeforeLogin is what we offer over TLS.
func BeforeLogin(mechanisms ...string) Capabilities {
	l := Capabilities{imap.CapIMAP4rev1, imap.CapID, imap.CapLiteralMinus, imap.CapSASLIR}
	for _, m := range mechanisms {
		l = append(l, imap.AuthCap(m))
	}
	return l
}

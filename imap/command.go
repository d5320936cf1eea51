package imap

import (
	"bytes"
	"strings"
)

// maxIDPairs and the lengths are RFC 2971, section 3.3.
const (
	maxIDPairs = 30
	maxIDName  = 30
	maxIDValue = 1024
)

// Begin reads a command's tag and name, in upper case; its arguments are still to
// come. Where the tag can't be echoed, it is "" beside the error.
func (d *Decoder) Begin() (tag, name string, err error) {
	if tag, err = d.Tag(); err != nil {
		return "", "", err
	}
	if err = d.SP(); err != nil {
		return d.wholeTag(tag), "", err
	}
	name, err = d.Atom(32)
	return tag, strings.ToUpper(name), err
}

// wholeTag is the tag where it was followed by the line's end, and "" where other
// octets came: then it wasn't one.
func (d *Decoder) wholeTag(tag string) string {
	if end, err := d.AtEnd(); err == nil && end {
		return tag
	}
	return ""
}

// Login reads the arguments of LOGIN (RFC 9051, section 6.2.3). Both strings may be
// empty or hold any octet but NUL, CR and LF where they were quoted, and any where they
// were literals: whoever uses them looks.
func (d *Decoder) Login() (user, password []byte, err error) {
	if err := d.SP(); err != nil {
		return nil, nil, err
	}
	if user, err = d.AString(MaxString); err != nil {
		return nil, nil, err
	}
	if err := d.SP(); err != nil {
		return nil, nil, err
	}
	if password, err = d.AString(MaxString); err != nil {
		return nil, nil, err
	}
	return user, password, d.CRLF()
}

// Authenticate reads the arguments of AUTHENTICATE (RFC 9051, section 6.2.2): the
// mechanism in upper case, and the initial response as it was sent ("" where there was
// none, "=" for the empty one).
func (d *Decoder) Authenticate() (mechanism, initial string, err error) {
	if err := d.SP(); err != nil {
		return "", "", err
	}
	if mechanism, err = d.Atom(20); err != nil { // RFC 4422, section 3.1
		return "", "", err
	}
	if end, err := d.AtEnd(); err != nil || end {
		return strings.ToUpper(mechanism), "", either(err, d.CRLF)
	}
	if err := d.SP(); err != nil {
		return "", "", err
	}
	if initial, err = d.Base64(); err != nil {
		return "", "", err
	}
	return strings.ToUpper(mechanism), initial, d.CRLF()
}

func either(err error, next func() error) error {
	if err != nil {
		return err
	}
	return next()
}

// ID reads the argument of ID (RFC 2971) and keeps the fields that are wanted, named in
// lower case, cut to limit octets. Whatever else the client says of itself is read and
// forgotten.
func (d *Decoder) ID(limit int, wanted ...string) (map[string]string, error) {
	d.AllowLiterals(2 * maxIDPairs)
	fields := make(map[string]string)
	err := d.idFields(func(name, value []byte) {
		for _, w := range wanted {
			if strings.EqualFold(w, string(name)) && value != nil {
				fields[w] = string(value[:min(len(value), limit)])
			}
		}
	})
	return fields, err
}

// idFields reads SP and a list of pairs, or NIL, and the command's end. A value is nil
// where it was NIL.
func (d *Decoder) idFields(field func(name, value []byte)) error {
	if err := d.SP(); err != nil {
		return err
	}
	if c, err := d.peek(); err != nil {
		return err
	} else if c != '(' {
		return either(d.null(), d.CRLF)
	}
	if err := d.expect('(', "("); err != nil {
		return err
	}
	for pairs := 0; ; pairs++ {
		if c, err := d.peek(); err != nil {
			return err
		} else if c == ')' {
			break
		}
		if pairs == maxIDPairs {
			return syntaxError("more than %d ID fields", maxIDPairs)
		}
		if pairs > 0 {
			if err := d.SP(); err != nil {
				return err
			}
		}
		name, value, err := d.idPair()
		if err != nil {
			return err
		}
		field(name, value)
	}
	return either(d.expect(')', ")"), d.CRLF)
}

func (d *Decoder) idPair() (name, value []byte, err error) {
	if name, err = d.String(maxIDName); err != nil {
		return nil, nil, err
	}
	if err := d.SP(); err != nil {
		return nil, nil, err
	}
	if c, err := d.peek(); err != nil || c == '"' || c == '{' {
		if err == nil {
			value, err = d.String(maxIDValue)
		}
		return name, value, err
	}
	return name, nil, d.null()
}

// null reads NIL.
func (d *Decoder) null() error {
	s, err := d.Atom(3)
	if err == nil && !strings.EqualFold(s, "NIL") {
		err = syntaxError("expected NIL, a string or a list")
	}
	return err
}

// Quote encodes s as a quoted string; ok is false where it can't be one, for it holds
// CR, LF, NUL or octets that a server need not take in quotes (RFC 3501 has no UTF-8 there).
func Quote(s []byte) (q []byte, ok bool) {
	q = append(q, '"')
	for _, c := range s {
		switch {
		case c < ' ' || c >= 0x7f:
			return nil, false
		case c == '"' || c == '\\':
			q = append(q, '\\')
		}
		q = append(q, c)
	}
	return append(q, '"'), true
}

// HasControl says whether s holds an ASCII control character, NUL, CR and LF among them.
func HasControl(s []byte) bool {
	return bytes.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

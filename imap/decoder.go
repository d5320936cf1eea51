// Package imap is the wire grammar (RFC 9051, with RFC 3501's clients in mind)
// that a gatekeeper needs, and no more: commands before login, the responses of
// an upstream during our login there, and strings and capability lists.
//
// Everything is bounded before it is read or kept, for what sits on the other
// side may be anybody. The package never decides: it says what was read, or that
// the grammar was broken (*SyntaxError), or that a bound was passed (ErrTooLong).
// No type here is safe for concurrent use.
package imap

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Bounds of a command before login, in octets.
const (
	MaxTag     = 64
	MaxCommand = 64 << 10 // a whole command with its literals; 30 ID pairs of 30 + 1,024 fit (RFC 2971)
	MaxLine    = 2 << 10  // a SASL answer of PLAIN or LOGIN; OAuth tokens will need 16 KiB
	MaxString  = 1024     // one string argument
	bufferSize = 4096     // what a Decoder reads at once, and all that it holds
)

// ErrTooLong says that a bound was passed: the peer can't be followed any more,
// and the connection has to end.
var ErrTooLong = errors.New("imap: command too long")

// A SyntaxError is a command that broke the grammar. After Decoder.Discard the
// next command can be read.
type SyntaxError struct{ Text string }

func (e *SyntaxError) Error() string { return "imap: " + e.Text }

func syntaxError(format string, args ...any) error {
	return &SyntaxError{Text: fmt.Sprintf(format, args...)}
}

// A Decoder reads the commands of a client that has not logged in. Its methods
// follow the ABNF of RFC 9051, section 9. They return *SyntaxError, ErrTooLong,
// or the error of the reader below.
type Decoder struct {
	// Continue tells the client to go on with a literal or a SASL exchange (it writes "+ ").
	Continue func() error

	r        *bufio.Reader
	left     int           // octets that this command may still have
	literals int           // literals that this command may still have
	header   literalHeader // whether the line so far ends in one, for Discard
	ended    bool          // the line end of the command has been read
}

// NewDecoder reads commands from r.
func NewDecoder(r io.Reader) *Decoder {
	return &Decoder{r: bufio.NewReaderSize(r, bufferSize), ended: true}
}

// Await blocks until the first octet of a command is there, and begins it.
func (d *Decoder) Await() error {
	_, err := d.r.Peek(1)
	d.left, d.literals = MaxCommand, 8
	d.beginLine()
	return err
}

// Buffered takes out what was read from the connection and belongs to no command
// yet. The Decoder is of no use afterwards.
func (d *Decoder) Buffered() []byte {
	b, _ := d.r.Peek(d.r.Buffered())
	return append([]byte(nil), b...)
}

// AllowLiterals sets how many literals the command may have from here on.
func (d *Decoder) AllowLiterals(n int) { d.literals = n }

func (d *Decoder) readByte() (byte, error) {
	if d.ended {
		return 0, syntaxError("command ends too early")
	}
	if d.left == 0 {
		return 0, ErrTooLong
	}
	c, err := d.r.ReadByte()
	if err != nil {
		return 0, noEOF(err)
	}
	d.left--
	d.header.next(c)
	d.ended = c == '\n'
	return c, nil
}

// beginLine goes on behind a literal, or with the next line of the same command.
func (d *Decoder) beginLine() { d.header, d.ended = literalHeader{}, false }

// noEOF marks the end of the stream inside a command: the command doesn't count.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// peek returns the next octet of the line without taking it; 0 at the line's end.
func (d *Decoder) peek() (byte, error) {
	if d.ended {
		return 0, nil
	}
	b, err := d.r.Peek(1)
	if err != nil {
		return 0, noEOF(err)
	}
	if b[0] == '\r' || b[0] == '\n' {
		return 0, nil
	}
	return b[0], nil
}

// Discard reads on to the command's end, after a *SyntaxError or for a command whose
// arguments don't matter. What a client sent in non-synchronizing literals (RFC 7888)
// is swallowed, never read as a command; a synchronizing one isn't invited.
func (d *Decoder) Discard() error {
	for {
		for !d.ended {
			if _, err := d.readByte(); err != nil {
				return err
			}
		}
		if !d.header.nonSync() {
			return nil
		}
		if d.header.size > uint64(d.left) {
			return ErrTooLong
		}
		n, err := d.r.Discard(int(d.header.size))
		if err != nil {
			return noEOF(err)
		}
		d.left -= n
		d.beginLine()
	}
}

// SP reads one space.
func (d *Decoder) SP() error { return d.expect(' ', "a space") }

func (d *Decoder) expect(want byte, what string) error {
	c, err := d.peek()
	if err != nil {
		return err
	}
	if c != want {
		return syntaxError("expected %s", what)
	}
	_, err = d.readByte()
	return err
}

// CRLF reads the end of the command. A bare LF ends it too, as it does for Dovecot
// and Cyrus; a bare CR is an error.
func (d *Decoder) CRLF() error {
	c, err := d.peek()
	if err != nil {
		return err
	}
	if c != 0 || d.ended {
		return syntaxError("too many arguments")
	}
	return d.lineEnd()
}

func (d *Decoder) lineEnd() error {
	c, err := d.readByte()
	if err != nil {
		return err
	}
	if c == '\r' {
		if c, err = d.readByte(); err != nil {
			return err
		}
	}
	if c != '\n' {
		return syntaxError("bare CR or NUL")
	}
	return nil
}

// AtEnd says whether the command has no further argument.
func (d *Decoder) AtEnd() (bool, error) {
	if d.ended {
		return true, nil
	}
	b, err := d.r.Peek(1)
	if err != nil {
		return false, noEOF(err)
	}
	return b[0] == '\r' || b[0] == '\n', nil
}

// Tag reads the tag that begins a command.
func (d *Decoder) Tag() (string, error) { return d.run("tag", MaxTag, isTagChar) }

// Base64 reads an initial response (RFC 4959): one or more octets of base64's alphabet,
// at most MaxLine.
func (d *Decoder) Base64() (string, error) { return d.run("initial response", MaxLine, isBase64Char) }

// Atom reads an atom of at most limit octets.
func (d *Decoder) Atom(limit int) (string, error) { return d.run("atom", limit, isAtomChar) }

// run reads one or more octets of a kind.
func (d *Decoder) run(what string, limit int, is func(byte) bool) (string, error) {
	var b []byte
	for {
		c, err := d.peek()
		if err != nil {
			return "", err
		}
		if !is(c) {
			break
		}
		if len(b) == limit {
			return "", syntaxError("%s too long", what)
		}
		if _, err := d.readByte(); err != nil {
			return "", err
		}
		b = append(b, c)
	}
	if len(b) == 0 {
		return "", syntaxError("expected %s", what)
	}
	return string(b), nil
}

// AString reads an astring of at most limit octets: an atom (with "]"), a quoted
// string, or a literal of either kind.
func (d *Decoder) AString(limit int) ([]byte, error) {
	c, err := d.peek()
	if err != nil {
		return nil, err
	}
	if c == '"' || c == '{' {
		return d.String(limit)
	}
	s, err := d.run("argument", limit, isAStringChar)
	return []byte(s), err
}

// String reads a quoted string or a literal of at most limit octets.
func (d *Decoder) String(limit int) ([]byte, error) {
	c, err := d.peek()
	if err != nil {
		return nil, err
	}
	switch c {
	case '"':
		return d.quoted(limit)
	case '{':
		return d.literal(limit)
	}
	return nil, syntaxError("expected a string")
}

// quoted reads DQUOTE *QUOTED-CHAR DQUOTE. UTF-8 is let through (RFC 9051, section 4.3),
// and so is any other octet above 127: whoever uses the string looks at it.
func (d *Decoder) quoted(limit int) ([]byte, error) {
	if _, err := d.readByte(); err != nil {
		return nil, err
	}
	b := []byte{}
	for {
		c, err := d.readByte()
		if err != nil {
			return nil, err
		}
		switch c {
		case '"':
			return b, nil
		case '\\':
			if c, err = d.readByte(); err != nil {
				return nil, err
			}
			if c != '"' && c != '\\' {
				return nil, syntaxError("stray backslash in a quoted string")
			}
		case 0, '\r', '\n':
			return nil, syntaxError("line end or NUL in a quoted string")
		}
		if len(b) == limit {
			return nil, syntaxError("string too long")
		}
		b = append(b, c)
	}
}

// literal reads {n}, {n+} and what follows. The size is judged before anything is
// invited, allocated or read.
func (d *Decoder) literal(limit int) ([]byte, error) {
	if _, err := d.readByte(); err != nil { // {
		return nil, err
	}
	for d.header.open() {
		if _, err := d.readByte(); err != nil {
			return nil, err
		}
	}
	if !d.header.closed() {
		return nil, syntaxError("broken literal size")
	}
	if err := d.lineEnd(); err != nil {
		return nil, err
	}
	n := d.header.size
	switch {
	case n > uint64(limit):
		return nil, syntaxError("literal too large")
	case d.literals == 0:
		return nil, syntaxError("too many literals")
	case n > uint64(d.left):
		return nil, ErrTooLong
	}
	d.literals--
	if !d.header.nonSync() {
		if err := d.Continue(); err != nil {
			return nil, err
		}
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(d.r, b); err != nil {
		return nil, noEOF(err)
	}
	d.left -= int(n)
	d.beginLine()
	return b, nil
}

// Line reads the next line of the same command, at most MaxLine octets of it, without
// its end: an answer within a SASL exchange.
func (d *Decoder) Line() (string, error) {
	d.beginLine()
	var b []byte
	for {
		end, err := d.AtEnd()
		if err != nil {
			return "", err
		}
		if end {
			return string(b), d.lineEnd()
		}
		if len(b) == MaxLine {
			return "", syntaxError("line too long")
		}
		c, err := d.readByte()
		if err != nil {
			return "", err
		}
		b = append(b, c)
	}
}

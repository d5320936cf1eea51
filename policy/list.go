package policy

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

const (
	listBuffer  = 64 << 10
	maxListed   = 1024 // octets of a password: what imap reads of one
	sha1Digits  = 2 * sha1.Size
	maxCount    = 20 // digits of how often a password was seen
	otherDigits = 32 // the fewest of a hash: MD5, and the NTLM that Have I Been Pwned has besides SHA-1
)

// A ListForm is what a list of passwords is made of.
type ListForm int

// The forms.
const (
	AnyForm   ListForm = iota // the first line tells
	PlainForm                 // a password a line
	SHA1Form                  // the SHA-1 of one a line, in hexadecimal, alone or before :COUNT
)

// A ListCount says what was in lists.
type ListCount struct {
	Passwords uint64 // those that are in there twice count twice
	LeftOut   uint64 // lines that are nobody's password: longer than 1,024 octets, or with a NUL
}

var errNoPasswords = errors.New("there is no password in it")

// readList calls add with the key of each password in a list. Its errors never say what is in a line.
func readList(r *bufio.Reader, form ListForm, add func(key uint64) error) (n ListCount, err error) {
	if err := skipMark(r); err != nil {
		return n, err
	}
	for at := 1; ; at++ {
		line, err := readLine(r)
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		case len(line) == 0:
			continue
		}
		if form == AnyForm {
			if form, err = formOf(line); err != nil {
				return n, fmt.Errorf("line %d: %w", at, err)
			}
		}
		var key uint64
		switch {
		case form == SHA1Form:
			sum, ok := sha1In(line)
			if !ok {
				return n, fmt.Errorf("line %d isn't a SHA-1 in %d hexadecimal digits, and this is a list of those", at, sha1Digits)
			}
			key = binary.BigEndian.Uint64(sum[:])
		case len(line) > maxListed || bytes.IndexByte(line, 0) >= 0:
			n.LeftOut++
			continue
		default:
			key = commonKey(line)
		}
		n.Passwords++
		if err := add(key); err != nil {
			return n, err
		}
	}
}

// skipMark passes over the mark that some editors begin a UTF-8 text with: it is no part of the first
// password.
func skipMark(r *bufio.Reader) error {
	begin, _ := r.Peek(3) // whatever is wrong is wrong again with the first line
	switch {
	case string(begin) == "\ufeff":
		r.Discard(len(begin)) // it is in the buffer
	case bytes.HasPrefix(begin, []byte{0x1f, 0x8b}):
		return errors.New("it is compressed: unpack it first, with gunzip")
	}
	return nil
}

// readLine returns the next line without its end, or io.EOF. Of a line that doesn't fit the buffer,
// and so can't be a password, it returns some part that is longer than maxListed.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return line, skipLine(r)
	}
	if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0) {
		return nil, err
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), nil
}

func skipLine(r *bufio.Reader) error {
	for {
		_, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil // the next line is none
		default:
			return err
		}
	}
}

// formOf tells what a list is made of whose first line this is. Hashes of other kinds are an error:
// taken for passwords, they would protect nobody.
func formOf(line []byte) (ListForm, error) {
	if _, ok := sha1In(line); ok {
		return SHA1Form, nil
	}
	digits := bytes.IndexFunc(line, func(r rune) bool { return !isHex(r) })
	if digits >= otherDigits && isCount(line[digits:]) {
		return AnyForm, errors.New("this is a list of hashes other than SHA-1, which passwords can't be looked up in: get one of SHA-1")
	}
	return PlainForm, nil
}

// sha1In reads a line of Have I Been Pwned: a SHA-1 in hexadecimal, often before a colon and a count.
func sha1In(line []byte) (sum [sha1.Size]byte, ok bool) {
	if len(line) < sha1Digits {
		return sum, false
	}
	_, err := hex.Decode(sum[:], line[:sha1Digits])
	rest := line[sha1Digits:]
	return sum, err == nil && (len(rest) == 0 || isCount(rest))
}

// isCount says whether it is a colon and a number.
func isCount(rest []byte) bool {
	return len(rest) > 1 && len(rest) <= 1+maxCount && rest[0] == ':' && len(bytes.Trim(rest[1:], "0123456789")) == 0
}

func isHex(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r && r <= 'f' || 'A' <= r && r <= 'F'
}

package policy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// maxText is how many passwords a list may have that is no filter: 128 MiB of keys.
const maxText = 16 << 20

// CommonPasswords is a list of common or breached passwords that stands in a file, and that is
// read again when the file changes. It holds only as much of a password as it takes to know it
// again. Make one with [OpenCommon]. It is safe for concurrent use.
type CommonPasswords struct{ file *File[commonList] }

// A commonList is one version of the list, and doesn't change.
type commonList interface {
	has(key uint64) bool
	size() uint64 // keys
}

// OpenCommon reads a list of passwords: a text with one a line, a text with the SHA-1 of one a line
// ("HEX" or "HEX:COUNT", as Have I Been Pwned gives it), or what a [FilterBuilder] has saved. How
// it begins tells which. In a text there are no comments, lines end with \n or \r\n, and lines are
// passed over that are empty or longer than 1,024 octets. What has a NUL is no text, and an error.
//
// All of it is read into memory, so that whatever becomes of the file later concerns no login. A
// filter costs some 2.25 octets for each password, a text 8. While a new version is read, there are
// two.
//
// The error wraps the cause, such as [fs.ErrNotExist]. The list is usable also then: nothing is
// on it until Watch finds a file that can be read.
func OpenCommon(path string) (*CommonPasswords, error) {
	file, err := Open(path, readCommon)
	return &CommonPasswords{file}, err
}

// Has says whether the password is on the list, octet by octet. Of those that aren't, a filter takes
// 1 in 65,536 for one that is.
func (c *CommonPasswords) Has(password []byte) bool {
	list, ok := c.file.Value()
	return ok && list.has(commonKey(password))
}

// Len is how many different passwords are on the list.
func (c *CommonPasswords) Len() uint64 {
	if list, ok := c.file.Value(); ok {
		return list.size()
	}
	return 0
}

// Watch reads the file again whenever it has changed, see [File.Watch]. Only one may run.
func (c *CommonPasswords) Watch(ctx context.Context, every time.Duration, told func(path string, err error)) {
	c.file.Watch(ctx, every, told)
}

// commonKey is what lists know a password by: the first 8 octets of its SHA-1, since that is what
// breach lists are published as. Nothing depends on SHA-1 being strong: who finds two passwords with
// one hash has found two that are refused.
func commonKey(password []byte) uint64 {
	sum := sha1.Sum(password)
	return binary.BigEndian.Uint64(sum[:])
}

func readCommon(r io.Reader, size int64) (commonList, error) {
	in := bufio.NewReaderSize(r, listBuffer)
	begin, err := in.Peek(len(fuseMagic))
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case string(begin) == fuseMagic:
		return readFuse(in, size)
	case len(begin) > 0 && strings.HasPrefix(fuseMagic, string(begin)):
		return nil, errCutOff
	}
	return readText(bufio.NewReaderSize(textReader{in}, listBuffer))
}

// A textReader fails at the first NUL. A file that was named by mistake, such as a program, would
// otherwise be taken for a list on which no password is that anybody has.
type textReader struct{ r io.Reader }

func (t textReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if i := bytes.IndexByte(p[:n], 0); i >= 0 {
		return i, errors.New("it has an octet 0, so it is neither a filter nor a text with a password a line")
	}
	return n, err
}

// textList is a list that was read from a text: keys in ascending order, each once.
type textList []uint64

func readText(in *bufio.Reader) (textList, error) {
	var list textList
	_, err := readList(in, AnyForm, func(key uint64) error {
		if len(list) == maxText {
			return errors.New("it has more than 16,777,216 passwords, too many for a text: make a filter of it with 'imapwarden passwords build'")
		}
		list = append(list, key)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: to go without a list, name no file", errNoPasswords)
	}
	return slices.Clip(distinct(list)), nil
}

func (l textList) has(key uint64) bool {
	_, found := slices.BinarySearch(l, key)
	return found
}

func (l textList) size() uint64 { return uint64(len(l)) }

// distinct sorts keys in place, and leaves each once.
func distinct(keys []uint64) []uint64 {
	slices.Sort(keys)
	return slices.Compact(keys)
}

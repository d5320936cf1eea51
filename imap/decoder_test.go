package imap

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// decode reads commands as a session does and tells what it made of each: LOGIN with its
// arguments, "bad" for a broken one, and how it ended.
func decode(input io.Reader) (commands []string, invited int) {
	d := NewDecoder(input)
	d.Continue = func() error { invited++; return nil }
	for {
		if err := d.Await(); err != nil {
			return append(commands, "end"), invited
		}
		tag, name, err := d.Begin()
		if err == nil && name == "LOGIN" {
			var user, password []byte
			if user, password, err = d.Login(); err == nil {
				commands = append(commands, fmt.Sprintf("%s LOGIN %q %q", tag, user, password))
				continue
			}
		} else if err == nil {
			if err = d.CRLF(); err == nil {
				commands = append(commands, tag+" "+name)
				continue
			}
		}
		var broken *SyntaxError
		if errors.As(err, &broken) {
			commands = append(commands, strings.TrimSpace(tag+" bad"))
			if err = d.Discard(); err == nil {
				continue
			}
		}
		if errors.Is(err, ErrTooLong) {
			return append(commands, "too long"), invited
		}
		return append(commands, "end"), invited
	}
}

func TestDecoder(t *testing.T) {
	tests := []struct {
		name, input string
		want        string // commands, joined
		invited     int
	}{
		{"atoms", "a LOGIN alice secret\r\n", `a LOGIN "alice" "secret"`, 0},
		{"quoted", `a login "al ice" "se\"cr\\et"` + "\r\n", `a LOGIN "al ice" "se\"cr\\et"`, 0},
		{"synchronizing literals", "a LOGIN {5}\r\nalice {6}\r\nsecret\r\n", `a LOGIN "alice" "secret"`, 2},
		{"non-synchronizing literals", "a LOGIN {5+}\r\nalice {6+}\r\nsecret\r\n", `a LOGIN "alice" "secret"`, 0},
		{"line ends in a literal", "a LOGIN {4+}\r\na\r\nb x\r\n", `a LOGIN "a\r\nb" "x"`, 0},
		{"empty literals", "a LOGIN {0+}\r\n {0}\r\n\r\n", `a LOGIN "" ""`, 1},
		{"bare LF ends a line", "a NOOP\nb NOOP\n", "a NOOP|b NOOP", 0},
		{"bracket in an astring", "a LOGIN a]b x\r\n", `a LOGIN "a]b" "x"`, 0},

		{"empty line", "\r\nb NOOP\r\n", "bad|b NOOP", 0},
		{"no tag", " NOOP\r\n", "bad", 0},
		{"plus as tag", "+ NOOP\r\n", "bad", 0},
		{"star as tag", "* NOOP\r\n", "bad", 0},
		{"8-bit tag", "a\xffb NOOP\r\n", "bad", 0},
		{"over-long tag", strings.Repeat("x", 65) + " NOOP\r\n", "bad", 0},
		{"tag only", "a\r\n", "a bad", 0},
		{"tag and space", "a \r\n", "a bad", 0},
		{"NUL", "a NO\x00OP\r\n", "a bad", 0},
		{"NUL as a line end", "a NOOP\x00\r\n", "a bad", 0},
		{"bare CR", "a NOOP\rb\r\nc NOOP\r\n", "a bad|c NOOP", 0},
		{"bare CR in a literal header", "a LOGIN {1\r}\r\nb NOOP\r\n", "a bad|b NOOP", 0},

		{"one argument", "a LOGIN alice\r\n", "a bad", 0},
		{"three arguments", "a LOGIN alice secret x\r\n", "a bad", 0},
		{"list argument", "a LOGIN (alice) secret\r\n", "a bad", 0},
		{"two spaces", "a LOGIN  alice secret\r\n", "a bad", 0},
		{"stray backslash", `a LOGIN "al\ice" x` + "\r\n", "a bad", 0},
		{"open quote", "a LOGIN \"alice x\r\nb NOOP\r\n", "a bad|b NOOP", 0},
		{"8-bit atom", "a LOGIN \xc3\xa4 x\r\n", "a bad", 0},

		{"large literals aren't invited", "a LOGIN {1048576}\r\nb NOOP\r\n", "a bad|b NOOP", 0},
		{"2^32", "a LOGIN {4294967296}\r\n", "a bad", 0},
		{"2^64", "a LOGIN {18446744073709551616}\r\n", "a bad", 0},
		{"negative", "a LOGIN {-1}\r\n", "a bad", 0},
		{"space in the size", "a LOGIN { 2}\r\n", "a bad", 0},
		{"no size", "a LOGIN {}\r\n", "a bad", 0},
		{"letters in the size", "a LOGIN {2x}\r\n", "a bad", 0},
		{"literal8", "a LOGIN ~{2}\r\n", "a bad", 0},
		{"refused, swallowed whole", "a LOGIN {1025+}\r\n" + strings.Repeat("x", 1025) + "\r\nb NOOP\r\n", "a bad|b NOOP", 0},
		{"hidden in a refused literal", "a LOGIN x y {8+}\r\nb NOOP\r\n\r\nc NOOP\r\n", "a bad|c NOOP", 0},
		{"hidden behind an unknown command", "a XYZZY {8+}\r\nb NOOP\r\n {8+}\r\nc NOOP\r\n\r\nd NOOP\r\n", "a bad|d NOOP", 0},
		{"hidden behind 2^64", "a LOGIN {18446744073709551617+}\r\nb NOOP\r\n", "a bad|too long", 0},
		{"hidden behind many digits", "a LOGIN {" + strings.Repeat("0", 40) + "8+}\r\nb NOOP\r\n x\r\n", `a LOGIN "b NOOP\r\n" "x"`, 0},
		{"64 KiB without a line end", strings.Repeat("x", MaxCommand+1), "bad|too long", 0},
		{"1 MiB announced", "a LOGIN x y {1048576+}\r\n", "a bad|too long", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for how, r := range map[string]io.Reader{
				"whole":               strings.NewReader(test.input),
				"one octet at a time": iotest.OneByteReader(strings.NewReader(test.input)),
			} {
				commands, invited := decode(r)
				got := strings.TrimSuffix(strings.Join(commands, "|"), "|end")
				if got != test.want || invited != test.invited {
					t.Errorf("%s: got %s (%d invited), want %s (%d)", how, got, invited, test.want, test.invited)
				}
			}
		})
	}
}

func TestNineLiterals(t *testing.T) {
	d := NewDecoder(strings.NewReader("a" + strings.Repeat(" {1+}\r\nx", 9) + "\r\nb NOOP\r\n"))
	if err := d.Await(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Tag(); err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		err := d.SP()
		if err == nil {
			_, err = d.AString(10)
		}
		var broken *SyntaxError
		if i < 8 && err != nil || i == 8 && !errors.As(err, &broken) {
			t.Fatalf("literal %d: %v", i+1, err)
		}
	}
	if err := d.Discard(); err != nil {
		t.Fatal(err)
	}
	d.Await()
	if tag, name, err := d.Begin(); tag != "b" || name != "NOOP" || err != nil {
		t.Errorf("then %q %q %v", tag, name, err)
	}
}

func TestID(t *testing.T) {
	pairs := func(n, name, value int) string {
		var b strings.Builder
		for i := range n {
			if i > 0 {
				b.WriteByte(' ')
			}
			fmt.Fprintf(&b, "%q %q", strings.Repeat("n", name), strings.Repeat("v", value))
		}
		return b.String()
	}
	tests := []struct{ name, input, want string }{
		{"nil", " NIL\r\n", "map[]"},
		{"empty", " ()\r\n", "map[]"},
		{"wanted", ` ("Name" "x" "version" NIL "os" "y")` + "\r\n", "map[name:x os:y]"},
		{"cut", ` ("name" "0123456789")` + "\r\n", "map[name:01234567]"},
		{"literals", " (\"name\" {1+}\r\nx {2+}\r\nos {1+}\r\ny)\r\n", "map[name:x os:y]"},
		{"the largest", " (" + pairs(30, 30, 1024) + ")\r\n", "map[]"},
		{"one pair more", " (" + pairs(31, 3, 3) + ")\r\n", "bad"},
		{"1,000 pairs", " (" + pairs(1000, 3, 3) + ")\r\n", "bad"},
		{"10,000 parentheses", " " + strings.Repeat("(", 10000) + "\r\n", "bad"},
		{"name without value", ` ("name")` + "\r\n", "bad"},
		{"atom as name", ` (name "x")` + "\r\n", "bad"},
		{"no list", ` "name"` + "\r\n", "bad"},
		{"value too long", ` ("name" "` + strings.Repeat("x", 1025) + `")` + "\r\n", "bad"},
	}
	for _, test := range tests {
		d := NewDecoder(strings.NewReader(test.input))
		if err := d.Await(); err != nil {
			t.Fatal(err)
		}
		fields, err := d.ID(8, "name", "os")
		got := fmt.Sprint(fields)
		var broken *SyntaxError
		if errors.As(err, &broken) {
			got = "bad"
		} else if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

// A command is the same however it was cut into segments, and what comes behind it is
// left for whoever reads next.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte("a LOGIN alice secret\r\nb NOOP\r\n"), uint8(3))
	f.Add([]byte("a LOGIN {5+}\r\nalice {6}\r\nsecret\r\n"), uint8(1))
	f.Add([]byte("a XYZZY {3+}\r\nb \r\nc LOGIN \"\\\"\" {0}\r\n\r\n"), uint8(7))
	f.Fuzz(func(t *testing.T, input []byte, size uint8) {
		whole, invited := decode(bytes.NewReader(input))
		cut, invitedCut := decode(&segments{input, int(size%64) + 1})
		if fmt.Sprint(whole) != fmt.Sprint(cut) || invited != invitedCut {
			t.Errorf("whole: %q, in segments: %q", whole, cut)
		}
		for _, c := range whole {
			tag, name, ok := strings.Cut(c, " ")
			if ok && (len(tag) > MaxTag || strings.ContainsAny(tag, "+*%{()\"\\\r\n\x00") || strings.ContainsAny(name, "\r\n")) {
				t.Errorf("a tag that can't be echoed: %q", c)
			}
		}
	})
}

// segments reads size octets at a time.
type segments struct {
	rest []byte
	size int
}

func (s *segments) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.size)], s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// What is quoted reads back as the same octets.
func FuzzQuote(f *testing.F) {
	f.Add([]byte(`a"b\c`))
	f.Fuzz(func(t *testing.T, s []byte) {
		q, ok := Quote(s)
		if !ok {
			return
		}
		d := NewDecoder(bytes.NewReader(append(q, "\r\n"...)))
		d.Await()
		if got, err := d.String(len(s)); err != nil || !bytes.Equal(got, s) {
			t.Errorf("%q reads back as %q, %v", s, got, err)
		}
	})
}

package policy

import (
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// listIn writes a list, and opens it.
func listIn(t testing.TB, text string) (string, *CommonPasswords, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := OpenCommon(path)
	return path, list, err
}

// hashOf is the line of a list of SHA-1.
func hashOf(password string) string { return fmt.Sprintf("%X", sha1.Sum([]byte(password))) }

func TestCommonPasswords(t *testing.T) {
	many := func(n int) string { return strings.Repeat("x", n) }
	tests := []struct {
		name, text string
		on, off    []string
	}{
		{"a text", "hunter2\nsesame\n", []string{"hunter2", "sesame"}, []string{"", "hunter", "hunter22", "Hunter2", "sesame\n", "hunter2\nsesame"}},
		{"no end of the last line", "hunter2\nsesame", []string{"hunter2", "sesame"}, nil},
		{"from Windows", "hunter2\r\n\r\nsesame\r\n", []string{"hunter2", "sesame"}, []string{"", "hunter2\r", "\r"}},
		{"one \\r belongs to the line's end", "hunter2\r\r\n", []string{"hunter2\r"}, []string{"hunter2", "hunter2\r\r"}},
		{"all octets count", " hunter2 \n#sesame\nà\n\xe0\n", []string{" hunter2 ", "#sesame", "à", "\xe0"}, []string{"hunter2", "sesame", "a"}},
		{"empty lines", "\n\nhunter2\n\n\n", []string{"hunter2"}, []string{"", "\n"}},
		{"a mark before it", "\ufeffhunter2\n\ufeffsesame\n", []string{"hunter2", "\ufeffsesame"}, []string{"\ufeffhunter2", "sesame"}},
		{"a mark before hashes", "\ufeff" + hashOf("hunter2") + "\n", []string{"hunter2"}, nil},
		{"twice", "hunter2\nhunter2\nsesame\nhunter2\n", []string{"hunter2", "sesame"}, nil},
		{"as long as it can be", many(1024) + "\n", []string{many(1024)}, []string{many(1023)}},
		{"too long", many(1025) + "\n" + many(64<<10) + "\n" + many(200<<10) + "\nhunter2\n" + many(300<<10), []string{"hunter2"}, []string{many(1025), many(64 << 10), "x"}},
		{"hashes", hashOf("hunter2") + ":17\r\n" + strings.ToLower(hashOf("sesame")) + ":1\r\n\r\n", []string{"hunter2", "sesame"}, []string{hashOf("hunter2"), hashOf("hunter2") + ":17"}},
		{"hashes alone", hashOf("hunter2") + "\n" + hashOf("sesame"), []string{"hunter2", "sesame"}, nil},
		{"hashes after others", "hunter2\n" + hashOf("sesame") + "\n", []string{"hunter2", hashOf("sesame")}, []string{"sesame"}},
		{"nearly a hash", hashOf("sesame") + "0\n", []string{hashOf("sesame") + "0"}, []string{"sesame"}},
		{"nearly a count", hashOf("sesame") + ":many\n", []string{hashOf("sesame") + ":many"}, []string{"sesame"}},
		{"nearly a list of others' hashes", hashOf("sesame")[:31] + ":1\n", []string{hashOf("sesame")[:31] + ":1"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, list, err := listIn(t, tt.text)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range tt.on {
				if !list.Has([]byte(p)) {
					t.Errorf("%.40q isn't on the list", p)
				}
			}
			for _, p := range tt.off {
				if list.Has([]byte(p)) {
					t.Errorf("%.40q is on the list", p)
				}
			}
			if list.Len() != uint64(len(tt.on)) {
				t.Errorf("%d passwords, want %d", list.Len(), len(tt.on))
			}
		})
	}
}

func TestCommonPasswordsErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"empty", "", "there is no password in it"},
		{"empty lines", "\n\r\n", "there is no password in it"},
		{"UTF-16", "\xff\xfes\x00e\x00s\x00a\x00m\x00e\x00\n\x00", "it has an octet 0"},
		{"a NUL far behind", strings.Repeat("sesame\n", 20_000) + "hun\x00ter2\n", "it has an octet 0"},
		{"compressed", "\x1f\x8b\x08\x00secret", "it is compressed"},
		{"a damaged hash", "\n" + hashOf("hunter2") + ":1\nsecret\n", "line 3 isn't a SHA-1"},
		{"a short hash", hashOf("hunter2") + "\n" + hashOf("hunter2")[1:] + "\n", "line 2 isn't a SHA-1"},
		{"a hash that is too long", hashOf("hunter2") + "\n" + hashOf("hunter2") + ":" + strings.Repeat("1", 70<<10) + "\n", "line 2 isn't a SHA-1"},
		{"NTLM", "8846F7EAEE8FB117AD06BDD830B7586C:9\n", "line 1: this is a list of hashes other than SHA-1"},
		{"what Have I Been Pwned gives of a range", hashOf("hunter2")[5:] + ":9\n", "line 1: this is a list of hashes other than SHA-1"},
		{"a filter's first octets", fuseMagic[:7], "the filter is cut off"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path, list, err := listIn(t, tt.text)
			if err == nil || !strings.HasPrefix(err.Error(), "policy: reading "+path+": ") || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %s", err, tt.want)
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), hashOf("hunter2")[5:]) {
				t.Errorf("the error says what is in the file: %v", err)
			}
			if list.Has([]byte("hunter2")) || list.Len() != 0 {
				t.Error("something is on the list")
			}
		})
	}
	if list, err := OpenCommon(filepath.Join(t.TempDir(), "nowhere")); !errors.Is(err, fs.ErrNotExist) || list.Has([]byte("hunter2")) {
		t.Errorf("no file: %v", err)
	}
}

// A list that becomes unreadable, or a filter that is cut off in place while it is in use, leaves the
// last one.
func TestCommonPasswordsWatch(t *testing.T) {
	path, list, err := listIn(t, "hunter2\n")
	if err != nil {
		t.Fatal(err)
	}
	filter := filepath.Join(t.TempDir(), "filter")
	build(t, &FilterBuilder{Path: filter}, "sesame\n")
	whole, err := os.ReadFile(filter)
	if err != nil {
		t.Fatal(err)
	}
	changes := []struct {
		name string
		text []byte
		on   string
		fine bool
	}{
		{"another text", []byte("tr0ub4dor\n"), "tr0ub4dor", true},
		{"emptied", nil, "tr0ub4dor", false},
		{"a filter", whole, "sesame", true},
		{"cut off", whole[:len(whole)/2], "sesame", false},
		{"a text again", []byte("hunter2\n"), "hunter2", true},
	}
	synctest.Test(t, func(t *testing.T) {
		told := make(chan error, 1)
		go list.Watch(t.Context(), time.Minute, func(_ string, err error) { told <- err })
		for i, c := range changes {
			when := time.Now().Add(time.Duration(i) * time.Hour) // whatever the file system's clock says
			if err := errors.Join(os.WriteFile(path, c.text, 0o600), os.Chtimes(path, when, when)); err != nil {
				t.Fatal(err)
			}
			if err := <-told; (err == nil) != c.fine {
				t.Errorf("%s: %v", c.name, err)
			}
			for _, p := range []string{"hunter2", "tr0ub4dor", "sesame"} {
				if list.Has([]byte(p)) != (p == c.on) {
					t.Errorf("%s: %s is on the list: %v", c.name, p, list.Has([]byte(p)))
				}
			}
		}
	})
}

// Each login asks.
func TestCommonPasswordsAllocateNothing(t *testing.T) {
	path, text, err := listIn(t, "hunter2\n")
	if err != nil {
		t.Fatal(err)
	}
	build(t, &FilterBuilder{Path: path}, "hunter2\n")
	filter, err := OpenCommon(path)
	if err != nil {
		t.Fatal(err)
	}
	on, off := []byte("hunter2"), bytes.Repeat([]byte("x"), 1024)
	for name, list := range map[string]*CommonPasswords{"text": text, "filter": filter} {
		if n := testing.AllocsPerRun(100, func() {
			if !list.Has(on) || list.Has(off) {
				t.Error("wrong")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkCommonPasswords(b *testing.B) {
	const n = 1_000_000
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "password%d\n", i)
	}
	path, list, err := listIn(b, text.String())
	if err != nil {
		b.Fatal(err)
	}
	has := func(list *CommonPasswords) func(b *testing.B) {
		return func(b *testing.B) {
			password := []byte("a long password that isn't on the list")
			b.ReportAllocs()
			for b.Loop() {
				password[0]++
				list.Has(password)
			}
		}
	}
	b.Run("text", has(list))
	filter := build(b, &FilterBuilder{Path: path}, text.String())
	if list, err = OpenCommon(path); err != nil {
		b.Fatal(err)
	}
	b.Run("filter", func(b *testing.B) {
		has(list)(b)
		b.ReportMetric(float64(filter.Octets)/n, "octets/password")
	})
}

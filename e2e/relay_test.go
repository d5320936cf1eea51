package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

func TestLargeMessage(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	message := anyMessage(20 << 20)

	c := dialClient(t, home, w.implicit)
	if err := c.Login(a.name, a.withCode(t)).Wait(); err != nil {
		t.Fatal(err)
	}
	upload := c.Append("INBOX", int64(len(message)), nil)
	if _, err := upload.Write(message); err != nil {
		t.Fatal(err)
	}
	if err := upload.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := upload.Wait(); err != nil {
		t.Fatal(err)
	}
	selected, err := c.Select("INBOX", nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	body := &imap.FetchItemBodySection{Peek: true}
	fetched, err := c.Fetch(imap.SeqSetNum(selected.NumMessages), &imap.FetchOptions{BodySection: []*imap.FetchItemBodySection{body}}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	if len(fetched) != 1 {
		t.Fatalf("fetched %d messages", len(fetched))
	}
	got := fetched[0].FindBodySection(body)
	if i := firstDifference(got, message); i >= 0 {
		t.Fatalf("sent %d octets, got %d; they differ from octet %d on", len(message), len(got), i)
	}
}

func TestIdleSeesDelivery(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a := w.enrolled(anyPassword())
	waiting := dialTLS(t, home, w.implicit)
	waiting.mustLogin(a.name, a.withCode(t))
	waiting.holdsMailOf(a)
	waiting.send("i1 IDLE\r\n")
	if line := waiting.read(); !strings.HasPrefix(line, "+") {
		t.Fatalf("IDLE: %q", line)
	}

	other := dialTLS(t, home, w.implicit)
	other.mustLogin(a.name, a.password)
	if r := other.do("APPEND INBOX {23+}\r\nSubject: new\r\n\r\nHello\r\n"); !r.is("OK") {
		t.Fatalf("APPEND: %s", r.line)
	}
	for line := ""; !strings.HasPrefix(line, "* 2 EXISTS"); {
		line = waiting.read()
	}
	waiting.send("DONE\r\n")
	if r := waiting.await("i1"); !r.is("OK") {
		t.Fatalf("DONE: %s", r.line)
	}
}

// Mail programs send ahead: what stands behind the login reaches the upstream
// in order and whole.
func TestPipelined(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	t.Run("LOGIN, SELECT and NOOP", func(t *testing.T) {
		a := w.enrolled(anyPassword())
		c := dialTLS(t, home, w.implicit)
		c.send("p1 LOGIN " + a.name + " " + a.withCode(t) + "\r\np2 SELECT INBOX\r\np3 NOOP\r\n")
		for _, tag := range []string{"p1", "p2", "p3"} {
			if r := c.await(tag); !r.is("OK") {
				t.Fatalf("%s: %s", tag, r.line)
			}
		}
		c.holdsMailOf(a)
	})
	t.Run("LOGIN and a long APPEND", func(t *testing.T) {
		a := w.enrolled(anyPassword())
		message := anyMessage(100000)
		c := dialTLS(t, home, w.implicit)
		c.send(fmt.Sprintf("p1 LOGIN %s %s\r\np2 APPEND INBOX {%d+}\r\n%s\r\np3 SELECT INBOX\r\n", a.name, a.withCode(t), len(message), message))
		for _, tag := range []string{"p1", "p2", "p3"} {
			if r := c.await(tag); !r.is("OK") {
				t.Fatalf("%s: %s", tag, r.line)
			}
		}
		r := c.do("FETCH 2 RFC822.SIZE")
		if want := fmt.Sprintf("* 2 FETCH (RFC822.SIZE %d)", len(message)); !r.has(want) {
			t.Errorf("got %q, want %q", r.untagged, want)
		}
	})
	t.Run("LOGIN that fails, then SELECT", func(t *testing.T) {
		a := w.enrolled(anyPassword())
		c := dialTLS(t, home, w.implicit)
		c.send("p1 LOGIN " + a.name + " " + known.add(anyPassword()) + "\r\np2 SELECT INBOX\r\n")
		if r := c.await("p1"); !r.is("NO") {
			t.Errorf("LOGIN: %s", r.line)
		}
		if r := c.await("p2"); !r.is("BAD") && !r.is("NO") {
			t.Errorf("SELECT: %s", r.line)
		}
	})
}

// What would undo the login past the second factor is refused, and the session goes on.
func TestRefusedAfterLogin(t *testing.T) {
	t.Parallel()
	w := startWarden(t, settings{})
	a, victim := w.enrolled(anyPassword()), w.enrolled(anyPassword())
	c := dialTLS(t, home, w.implicit)
	c.mustLogin(a.name, a.withCode(t))
	for _, command := range []string{
		"UNAUTHENTICATE",
		"LOGIN " + victim.name + " " + victim.password,
		"AUTHENTICATE PLAIN " + known.add(sasl("\x00"+victim.name+"\x00"+victim.password)),
		"STARTTLS",
	} {
		if r := c.do(command); r.is("OK") {
			t.Errorf("%s works after login", strings.Fields(command)[0])
		}
		c.holdsMailOf(a)
	}
}

// anyMessage returns a message of about that size: lines of all lengths with
// every octet that a line may have, and no NUL, which IMAP doesn't carry in a
// literal (RFC 9051, section 4.3).
func anyMessage(size int) []byte {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	message := fmt.Appendf(make([]byte, 0, size+8192), "From: sender@example.test\r\nSubject: random, seed %d\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n\r\n", seed)
	for len(message) < size {
		for range random.IntN(900) {
			octet := byte(1 + random.IntN(255))
			if octet == '\r' || octet == '\n' {
				octet = ' '
			}
			message = append(message, octet)
		}
		message = append(message, '\r', '\n')
	}
	return message
}

// firstDifference returns where they differ first, or -1.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func mustRead(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
)

// An account is a mailbox at Dovecot and, once enrolled, an authenticator.
type account struct {
	name     string
	password string
	secret   string   // of the authenticator, base32; "" before enrolment
	step     int64    // the newest time step whose code was taken
	recovery []string // codes that nobody has used yet
}

// newAccount makes a mailbox with one message whose subject is the account's name.
func (d *dovecot) newAccount(t *testing.T, password string) *account {
	t.Helper()
	a := &account{name: randomLetters(8) + "@example.test"}
	a.setPassword(t, d, password)
	d.deliver(t, a, "From: sender@example.test\r\nSubject: "+a.name+"\r\nMessage-ID: <"+a.name+">\r\n\r\nHello.\r\n")
	return a
}

// setPassword makes it the account's password at Dovecot.
func (a *account) setPassword(t *testing.T, d *dovecot, password string) {
	t.Helper()
	a.password = known.add(password)
	// A passwd-file is one line of fields between colons.
	line := a.name + ":{PLAIN}" + password + "\n"
	file := filepath.Join(d.dir, "users", a.name)
	if err := os.WriteFile(file+".new", []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// changePassword is setPassword for an account that Dovecot knows already: it
// looks at a file again only once a second, and by its time in seconds.
func (a *account) changePassword(t *testing.T, d *dovecot, password string) {
	t.Helper()
	a.setPassword(t, d, password)
	later := time.Now().Add(10 * time.Second)
	if err := os.Chtimes(filepath.Join(d.dir, "users", a.name), later, later); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		c := dial(t, home, d.plain)
		r := loginQuoted(c, a.name, password)
		c.Close()
		if r.is("OK") {
			return
		}
	}
	t.Fatal("Dovecot doesn't notice the new password")
}

// anyPassword returns a password whose form doesn't matter.
func anyPassword() string { return "pw-" + randomLetters(12) }

// withCode returns the password with a code that nobody has used yet. Steps
// are taken from the present one on, never an older one: it might grow too old
// on its way. The proxy allows one step of drift, so that the next one works too.
func (a *account) withCode(t *testing.T) string {
	t.Helper()
	for {
		present := time.Now().Unix() / 30
		if step := max(a.step+1, present); step <= present+1 {
			a.step = step
			return a.password + known.add(a.codeOf(t, step))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// withRecovery returns the password with a recovery code that nobody has used yet. Unlike
// withCode it never waits for the next time step.
func (a *account) withRecovery(t *testing.T) string {
	t.Helper()
	if len(a.recovery) == 0 {
		t.Fatal("no recovery code is left")
	}
	code := a.recovery[0]
	a.recovery = a.recovery[1:]
	return a.password + code
}

// withWrongCode returns the password with six digits that are no code now or soon.
func (a *account) withWrongCode(t *testing.T) string {
	t.Helper()
	present := time.Now().Unix() / 30
	right := map[string]bool{}
	for step := present - 2; step <= present+4; step++ {
		right[a.codeOf(t, step)] = true
	}
	for _, code := range []string{"111111", "222222", "333333", "444444", "555555", "666666", "777777", "888888"} {
		if !right[code] {
			return a.password + code
		}
	}
	panic("unreachable: seven steps can't have eight codes")
}

func (a *account) codeOf(t *testing.T, step int64) string {
	t.Helper()
	code, err := totp.GenerateCode(a.secret, time.Unix(step*30, 0))
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// randomLetters returns n lower-case letters: no digits, which might be read as a code.
func randomLetters(n int) string {
	text := make([]byte, n)
	rand.Read(text)
	for i := range text {
		text[i] = 'a' + text[i]%26
	}
	return string(text)
}

// known holds every secret that a test used, to look for it in logs.
var known secrets

// secrets are texts that may stand in no log.
type secrets struct {
	mu    sync.Mutex
	texts map[string]bool
}

// add notes the secret and returns it.
func (s *secrets) add(secret string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.texts == nil {
		s.texts = map[string]bool{}
	}
	s.texts[secret] = true
	return secret
}

// in returns how many of the secrets the text has: as they are, as JSON writes
// them, and as SASL sends them. Codes count only where they stand alone, since
// six digits also occur by chance.
func (s *secrets) in(text string, codes bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := 0
	for secret := range s.texts {
		if isCode(secret) {
			if codes && standsAlone(text, secret) {
				found++
			}
			continue
		}
		quoted, _ := json.Marshal(secret) // a string always has a JSON form
		for _, form := range []string{secret, string(quoted[1 : len(quoted)-1]), base64.StdEncoding.EncodeToString([]byte(secret))} {
			if strings.Contains(text, form) {
				found++
				break
			}
		}
	}
	return found
}

func isCode(s string) bool { return len(s) == 6 && strings.Trim(s, "0123456789") == "" }

func standsAlone(text, code string) bool {
	const part = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_"
	for at := 0; ; {
		i := strings.Index(text[at:], code)
		if i < 0 {
			return false
		}
		start := at + i
		end := start + len(code)
		before := start > 0 && strings.IndexByte(part, text[start-1]) >= 0
		after := end < len(text) && strings.IndexByte(part, text[end]) >= 0
		if !before && !after {
			return true
		}
		at = start + 1
	}
}

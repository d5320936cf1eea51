package auth

import (
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/hotp"
)

// rfcSecret and its codes are from RFC 6238, appendix B, cut to six digits.
var rfcSecret = Secret("12345678901234567890")

func TestMatchStep(t *testing.T) {
	const right = "287082" // at 59 s: step 1
	tests := []struct {
		name string
		code string
		now  int64
		last int64
		ok   bool
	}{
		{"now", right, 59, 0, true},
		{"one step late", right, 89, 0, true},
		{"one step early", right, 29, 0, true},
		{"two steps late", right, 90, 0, false},
		{"used", right, 59, 1, false},
		{"a newer one used", right, 59, 2, false},
		{"wrong", "287083", 59, 0, false},
		{"eight digits", "94287082", 59, 0, false},
		{"empty", "", 59, 0, false},
		{"the RFC's 1111111109", "081804", 1111111109, 0, true},
		{"the RFC's 20000000000", "353130", 20000000000, 0, true},
	}
	for _, test := range tests {
		step, ok := matchStep(test.code, rfcSecret, time.Unix(test.now, 0), test.last)
		if ok != test.ok {
			t.Errorf("%s: %v", test.name, ok)
		}
		if ok && (step <= test.last || step < test.now/30-1 || step > test.now/30+1) {
			t.Errorf("%s: step %d", test.name, step)
		}
	}
	for n := range len(rfcSecret) {
		code, err := hotp.GenerateCode(encodeSecret(rfcSecret[:n]), 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := matchStep(code, rfcSecret[:n], time.Unix(59, 0), 0); ok != (n >= minSecret) {
			t.Errorf("a secret of %d octets: %v", n, ok)
		}
	}
}

func TestSplitCode(t *testing.T) {
	tests := []struct {
		secret, separator string
		password, code    string // both "": none
	}{
		{"sesame123456", "", "sesame", "123456"},
		{"1234567", "", "1", "234567"},
		{"123456", "", "", ""},
		{"sesame", "", "", ""},
		{"sesame12345", "", "", ""},
		{"sesame12345x", "", "", ""},
		{"sesame 12345", "", "", ""},
		{"sesame１２３４５６", "", "", ""}, // digits, not ASCII ones
		{"", "", "", ""},
		{"sesame,123456", ",", "sesame", "123456"},
		{"open,sesame,123456", ",", "open,sesame", "123456"},
		{"sesame123456", ",", "", ""},
		{"sesame,1234567", ",", "", ""},
		{"sesame,12345", ",", "", ""},
		{"sesame,", ",", "", ""},
		{",123456", ",", "", ""},
		{"sesame,123456,", ",", "", ""},
		{"sesame::123456", "::", "sesame", "123456"},
		{"::123456", "::", "", ""},
	}
	for _, test := range tests {
		password, code, _, ok := splitCode(Secret(test.secret), test.separator)
		if string(password) != test.password || code != test.code || ok != (test.code != "") {
			t.Errorf("%q at %q: %q and %q, %v", test.secret, test.separator, string(password), code, ok)
		}
	}
}

func TestOtpauthURI(t *testing.T) {
	uri, err := otpauthURI("mail.example.org", "alice@example.org", rfcSecret)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"otpauth://totp/mail.example.org:alice@example.org?", "issuer=mail.example.org", "digits=6", "period=30", "algorithm=SHA1", "secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"} {
		if !strings.Contains(uri, part) {
			t.Errorf("%s lacks %s", uri, part)
		}
	}
}

package auth

import (
	"bytes"
	"encoding/base32"
	"fmt"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"
)

// RFC 6238 with the parameters that every authenticator app knows.
const (
	codeDigits = 6
	stepLength = 30 // seconds
	secretSize = 20 // octets, as RFC 4226, section 4, recommends
	minSecret  = 16 // octets, as the same section demands; an empty secret has codes too

	totpPurpose = "totp"
)

// stepOf returns the time step of a moment (RFC 6238, section 4.2).
func stepOf(t time.Time) int64 { return t.Unix() / stepLength }

// matchStep returns the time step at which the code is right: the current one, the
// one before or the one after (RFC 6238, section 5.2), if it is newer than lastStep.
func matchStep(code string, secret Secret, now time.Time, lastStep int64) (step int64, ok bool) {
	current := stepOf(now)
	for _, step := range []int64{current, current - 1, current + 1} {
		if step > lastStep && rightAt(code, secret, step, step) {
			return step, true
		}
	}
	return 0, false
}

// rightAt says whether the code was right at any step from first to last. The library's
// totp.Validate doesn't say at which, and so takes the same code twice.
func rightAt(code string, secret Secret, first, last int64) bool {
	if len(secret) < minSecret {
		return false
	}
	text := encodeSecret(secret)
	for step := max(first, 0); step <= last; step++ {
		ok, err := hotp.ValidateCustom(code, uint64(step), text,
			hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
		if ok && err == nil {
			return true
		}
	}
	return false
}

// otpauthURI returns what authenticator apps read from a QR code.
func otpauthURI(issuer, account string, secret Secret) (string, error) {
	key, err := totp.Generate(totp.GenerateOpts{
		Issuer: issuer, AccountName: account, Secret: secret,
		Period: stepLength, Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1,
	})
	if err != nil {
		return "", fmt.Errorf("auth: making the otpauth URI of %s: %w", account, err)
	}
	return key.URL(), nil
}

// encodeSecret writes a shared secret as people type it into an app.
func encodeSecret(secret Secret) string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)
}

// looksLikeCode says whether s is exactly six ASCII digits.
func looksLikeCode(s []byte) bool {
	if len(s) != codeDigits {
		return false
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// splitCode parts a password from the code behind it, which is a recovery code or the last six
// digits; with a separator, what follows the last one. ok is false where there is no code or
// nothing in front of it. The password shares the secret's memory.
func splitCode(secret Secret, separator string) (password Secret, code string, recovery, ok bool) {
	if password, code, ok = splitRecovery(secret, separator); ok {
		return password, code, true, true
	}
	end, start := len(secret)-codeDigits, len(secret)-codeDigits
	if separator != "" {
		end = bytes.LastIndex(secret, []byte(separator))
		start = end + len(separator)
	}
	if end <= 0 || !looksLikeCode(secret[start:]) {
		return nil, "", false, false
	}
	return secret[:end:end], string(secret[start:]), false, true
}

// Front returns what stands before a code, where the secret ends in what looks like one: what may
// be the password. It is nil where that is the whole secret only, and shares the secret's memory.
func (a *Authenticator) Front(secret Secret) Secret {
	front, _, _, _ := splitCode(secret, a.CodeSeparator)
	return front
}

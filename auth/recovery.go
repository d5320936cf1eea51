package auth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

const (
	recoveryCodes = 10
	// Two groups of five, such as "k7m2x-9qp4d": 50 random bits, which nobody can try out
	// against our limits, nor against the store without the key file.
	recoveryGroup  = 5
	recoveryLength = 2*recoveryGroup + 1
)

// byRecovery is the proof of those who bring a recovery code in place of a code.
type byRecovery struct {
	totp string // the authenticator's ID
	tag  []byte
}

func (p byRecovery) accepted(ctx context.Context, c *Claim) (Verdict, error) {
	return c.spend(ctx, Verdict{Outcome: Accepted, Factor: FactorRecovery}, func(grants []Grant, v *Verdict) (won bool, err error) {
		v.RecoveryLeft, won, err = c.auth.Records.SpendRecovery(ctx, p.totp, p.tag, c.auth.now(), grants...)
		if err != nil {
			return false, fmt.Errorf("auth: spending a recovery code of %s: %w", c.attempt.Account, err)
		}
		return won, nil
	})
}

func (byRecovery) denied(ctx context.Context, c *Claim) (Reason, error) {
	return WrongPassword, c.changed(ctx)
}

// showsRecovery looks for what may be a recovery code among the account's. One that never
// was is taken for a part of the password, which may well look like that.
func (a *Authenticator) showsRecovery(ctx context.Context, account Account, front Secret, code string, secret Secret) (shownCode, error) {
	codes, err := a.Records.RecoveryCodes(ctx, account.TOTP.ID)
	if err != nil {
		return shownCode{}, fmt.Errorf("auth: reading the recovery codes of %s: %w", account.Name, err)
	}
	tag := recoveryTag(secret, code)
	for _, c := range codes {
		if !hmac.Equal(c.Tag, tag) {
			continue
		}
		shown := shownCode{front: front, code: code, recovery: true, tag: tag}
		switch {
		case c.Used.IsZero():
			shown.state = codeFresh
		case a.now().Sub(c.Used) < sameLogin:
			shown.state = codeSpent
		default:
			shown.state = codeStale
		}
		return shown, nil
	}
	return shownCode{}, nil
}

// newRecovery makes recovery codes, and the tags by which an authenticator with that shared
// secret knows them again.
func newRecovery(secret Secret) (codes []string, tags [][]byte) {
	for range recoveryCodes {
		code := randomText(recoveryGroup) + "-" + randomText(recoveryGroup)
		codes = append(codes, code)
		tags = append(tags, recoveryTag(secret, code))
	}
	return codes, tags
}

// recoveryTag is keyed with the authenticator's shared secret, which is sealed: so the codes
// go with their authenticator, and sealing that with a new key takes them along.
func recoveryTag(secret Secret, code string) []byte {
	mac := hmac.New(sha256.New, key{secret: secret}.derive("imapwarden recovery code"))
	mac.Write([]byte(code))
	return mac.Sum(nil)
}

// splitRecovery parts a password from the recovery code behind it. ok is false where what is
// there has not that shape, or nothing stands before it.
func splitRecovery(secret Secret, separator string) (password Secret, code string, ok bool) {
	end := len(secret) - recoveryLength
	if end <= 0 {
		return nil, "", false
	}
	code = string(bytes.ToLower(secret[end:])) // a phone's keyboard begins with a capital
	for i, c := range []byte(code) {
		if (c == '-') != (i == recoveryGroup) || c != '-' && !isTextDigit(c) {
			return nil, "", false
		}
	}
	front, found := bytes.CutSuffix(secret[:end:end], []byte(separator))
	return front, code, found && len(front) > 0
}

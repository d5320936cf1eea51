package auth

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"
)

// maxName is the longest account name, in octets.
const maxName = 255

// Names turns what clients type into account names.
type Names struct {
	DefaultDomain string // completes names without one: alice -> alice@example.org; "" leaves them
	Unicode       bool   // lets letters and digits of all scripts pass, not only those of ASCII
}

// Canonical returns the account that a typed name means, or a *Refusal whose
// message doesn't repeat the name: people type passwords in the wrong field.
//
// Case and width are folded (RFC 8265, UsernameCaseMapped), and what is left must
// be letters, digits and ._-+@ alone. The upstream is sent a name made from the
// result, never the raw one: or else ALICE or " alice" would be the same mailbox to
// the upstream and another account, without a second factor, to us. So nothing
// is trimmed or mended here either, and Canonical(Canonical(x)) is Canonical(x).
//
// What an upstream's own folding (a collation without accents, a table of look-alikes)
// takes for alice must not be another account either: hence ASCII, unless Unicode is set.
// It is asked of the result, for only that reaches the upstream: full-width ＡＬＩＣＥ, as
// an input method types it, is alice to both sides.
func (n Names) Canonical(raw string) (string, error) {
	switch {
	case raw == "":
		return "", refuse(BadName, "the account name is empty")
	case len(raw) > maxName: // before any work is done for it
		return "", refuse(BadName, "the account name is longer than 255 octets")
	case !utf8.ValidString(raw): // the profile would mend it with U+FFFD
		return "", refuse(BadName, "the account name is not UTF-8")
	}
	name, err := precis.UsernameCaseMapped.String(raw)
	// Only now is it known whether there is a domain: a full-width @ has become an ordinary one.
	if err == nil && n.DefaultDomain != "" && !strings.Contains(name, "@") {
		name, err = precis.UsernameCaseMapped.String(name + "@" + n.DefaultDomain)
	}
	if err != nil {
		return "", refuse(BadName, "the account name has characters that no name may have, or not together")
	}
	if len(name) > maxName {
		return "", refuse(BadName, "the account name is longer than 255 octets")
	}
	if err := n.check(name); err != nil {
		return "", err
	}
	return name, nil
}

// check lets only those characters pass that mean nothing to any upstream:
// no % or {} that it would expand, no * that separates a master user, no path.
func (n Names) check(name string) error {
	local, domain, complete := strings.Cut(name, "@")
	switch {
	case !n.Unicode && strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII }):
		return refuse(BadName, "the account name has characters beyond ASCII, which the configuration doesn't let pass (account_names)")
	case strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune("._-+@", r) && !letterOrDigit(r) }):
		return refuse(BadName, "the account name has characters other than letters, digits and ._-+@")
	case strings.Contains(domain, "@"):
		return refuse(BadName, "the account name has more than one @")
	case !strings.ContainsFunc(local, letterOrDigit): // such as ".."
		return refuse(BadName, "the account name has no letter or digit before the domain")
	case complete && !strings.ContainsFunc(domain, letterOrDigit):
		return refuse(BadName, "the account name has an @ and no domain")
	case strings.HasPrefix(domain, ".") || strings.HasSuffix(domain, "."):
		return refuse(BadName, "the account name's domain begins or ends with a dot")
	}
	return nil
}

func letterOrDigit(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

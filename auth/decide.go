package auth

// Mode is what a second factor is to an attempt. Any other value, none included,
// is Required.
type Mode string

// The modes.
const (
	Required Mode = "required" // nobody comes in without one
	Optional Mode = "optional" // who has enrolled needs one
	Observe  Mode = "observe"  // all that the upstream lets in come in; what Required would refuse is recorded
)

// Factor is what let somebody in beside the password.
type Factor string

// The factors.
const (
	FactorNone        Factor = "none"
	FactorCode        Factor = "code"
	FactorRecovery    Factor = "recovery" // a recovery code
	FactorGrant       Factor = "grant"
	FactorAppPassword Factor = "app-password"
)

// facts are all that the decision about a password login rests on.
type facts struct {
	mode      Mode
	enrolled  bool
	code      codeState
	recovery  bool // the code is a recovery code
	grants    []knownGrant
	freshCode bool // grants don't count, but for the login that has just made one
}

// codeState is what the authenticator says of the end of a secret.
type codeState int

const (
	codeAbsent codeState = iota // it doesn't end in a code
	codeWrong                   // in digits that are not right, or not any more
	codeStale                   // in a recovery code that was used before
	codeSpent                   // in a code that was right within sameLogin and counts no more
	codeFresh                   // in one that is right and unspent
)

// A knownGrant is a grant of the account beside what we see of it in this attempt.
type knownGrant struct {
	id     string
	match  match
	live   bool // neither ended nor from elsewhere, and of the kind that the settings give
	recent bool // given within sameLogin
}

// match is what a grant knows of the presented secret.
type match int

const (
	matchNone  match = iota // nothing: it was given for another password
	matchWhole              // all of it is its password
	matchFront              // what stands before the code is its password
	matchSame               // it was given for this very secret, code included
)

// A decision is which password the upstream judges, and what a yes of it is worth.
type decision struct {
	strip  bool     // ask with what stands before the code, not with the whole secret
	factor Factor   // what the attempt brings beside a right password
	grants []string // which grants, for FactorGrant
	same   bool     // for FactorGrant: it is the login that made one of them, on another connection
	lacks  Reason   // why FactorNone isn't enough; "" where it is
}

// plan decides about a password login, before the upstream is asked. The upstream
// judges the password also where the answer will be no, so that all refusals take
// the same way and nobody learns from one which part was wrong.
func plan(f facts) decision {
	if !f.enrolled {
		if f.mode == Optional {
			return decision{factor: FactorNone}
		}
		return decision{factor: FactorNone, lacks: NotEnrolled}
	}

	// A password that we know whole ends in no code, whatever its last digits say.
	whole := f.knows(matchWhole)

	// A fresh code is taken even while a grant lives: it makes the grant last longer.
	if f.code == codeFresh && !whole {
		if f.recovery {
			return decision{strip: true, factor: FactorRecovery}
		}
		return decision{strip: true, factor: FactorCode}
	}
	if d, ok := f.byGrant(); ok {
		return d
	}

	d := decision{factor: FactorNone, strip: !whole && f.endsInCode()}
	switch {
	case !d.strip:
		d.lacks = NoCode
	case f.code == codeSpent:
		d.lacks = ReplayedCode
	case f.code == codeStale:
		d.lacks = Expired
	default:
		d.lacks = WrongCode // or Expired: only a right password is worth the look, see bare.accepted
	}
	return d
}

// byGrant decides by the grants that let this attempt in, if there are any: the session
// lives under all that know the password in the same way.
func (f facts) byGrant() (d decision, ok bool) {
	for _, g := range f.grants {
		strip := g.match != matchWhole
		if !f.counts(g) || ok && strip != d.strip {
			continue
		}
		ok, d.factor, d.strip = true, FactorGrant, strip
		d.grants = append(d.grants, g.id)
		d.same = d.same || g.match == matchSame
	}
	return d, ok
}

// counts says whether the grant lets this attempt in. Where a fresh code is asked
// for, one that was given for it a moment ago does: a mail program brings the same
// secret on several connections, and the code is spent by the first.
func (f facts) counts(g knownGrant) bool {
	if !g.live || g.match == matchNone {
		return false
	}
	return !f.freshCode || g.match == matchSame || g.match == matchFront && g.recent && f.code == codeSpent
}

// endsInCode says whether digits at the end are to be taken for a code, although
// they let nobody in. In observe mode, where a right password is enough, only on
// evidence: they may belong to the password of somebody who brings no code yet.
func (f facts) endsInCode() bool {
	switch f.code {
	case codeAbsent:
		return false
	case codeWrong:
		return f.mode != Observe || f.knows(matchFront) || f.knows(matchSame)
	}
	return true
}

// knows says whether a grant, ended ones included, knows the secret in this way.
func (f facts) knows(m match) bool {
	for _, g := range f.grants {
		if g.match == m {
			return true
		}
	}
	return false
}

// outdated returns the grants that know the password which the upstream is asked about.
func (f facts) outdated(strip bool) (ids []string) {
	for _, g := range f.grants {
		if g.match == matchWhole && !strip || g.match == matchFront && strip {
			ids = append(ids, g.id)
		}
	}
	return ids
}

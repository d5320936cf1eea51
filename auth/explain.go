package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// An Explanation says what would come of logins to an account from somewhere, as far as the
// records tell. Nothing is changed by it.
type Explanation struct {
	Account       string     `json:"account"`
	Known         bool       `json:"known"` // there is a record of it
	Enrolled      bool       `json:"enrolled"`
	Pending       bool       `json:"pending"`        // enrolment has begun, no code was shown yet
	Mode          Mode       `json:"mode"`           // what is asked of it
	Familiar      bool       `json:"familiar"`       // it has or had a grant from there
	Grants        int        `json:"grants"`         // that let in from there
	ClientGrants  int        `json:"client_grants"`  // that let in from everywhere, each one TLS client
	AppPasswords  int        `json:"app_passwords"`  // that let in from there
	RecoveryCodes int        `json:"recovery_codes"` // that are left
	Prospects     []Prospect `json:"prospects"`
}

// A Prospect is what would come of one kind of login, if the upstream finds its password right.
type Prospect struct {
	With    string `json:"with"` // what is presented
	Outcome string `json:"outcome"`
	Factor  Factor `json:"factor,omitempty"`
	Reason  Reason `json:"reason,omitempty"`
	Detail  string `json:"detail,omitempty"` // for people
}

// Explain says what would come of logins to the account from the source. mode is what the rules
// ask of it, and master says whether its upstream has a master user.
func (d *Directory) Explain(ctx context.Context, name string, source netip.Addr, mode Mode, master bool) (Explanation, error) {
	name, err := d.Names.Canonical(name)
	if err != nil {
		return Explanation{}, err
	}
	account, err := d.Records.Account(ctx, name)
	if err != nil && !errors.Is(err, ErrNoAccount) {
		return Explanation{}, fmt.Errorf("auth: reading account %s: %w", name, err)
	}
	e := Explanation{Account: name, Known: err == nil, Mode: mode, Enrolled: account.Enrolled()}
	e.Pending = account.TOTP != nil && !e.Enrolled
	if err := d.explainGrants(ctx, &e, source); err != nil {
		return Explanation{}, err
	}
	if e.Enrolled {
		summary, err := d.summary(ctx, account)
		if err != nil {
			return Explanation{}, err
		}
		e.RecoveryCodes = summary.RecoveryCodes
	}
	alone := facts{mode: mode, enrolled: e.Enrolled}
	if e.Grants > 0 {
		alone.grants = []knownGrant{{match: matchWhole, live: true}}
	}
	e.Prospects = []Prospect{alone.prospect("the password alone")}
	if e.Enrolled {
		coded := facts{mode: mode, enrolled: true, code: codeFresh}
		e.Prospects = append(e.Prospects, coded.prospect("the password and a code"))
	}
	app, err := d.explainAppPasswords(ctx, &e, source, master)
	if err != nil {
		return Explanation{}, err
	}
	e.Prospects = append(e.Prospects, app)
	return e, nil
}

func (d *Directory) explainGrants(ctx context.Context, e *Explanation, source netip.Addr) error {
	grants, err := d.Records.Grants(ctx, e.Account)
	if err != nil {
		return fmt.Errorf("auth: reading the grants of %s: %w", e.Account, err)
	}
	e.Familiar = familiar(grants, source)
	for _, g := range grants {
		switch {
		case g.forLogin() || !d.Grant.lives(g, g.LastUsed, d.now()):
		case len(g.Client) > 0 && d.Grant.ForClients():
			e.ClientGrants++
		case len(g.Client) == 0 && d.Grant.forNetworks() && g.Network == d.Grant.network(source):
			e.Grants++
		}
	}
	return nil
}

// prospect says what plan makes of the facts and a right password.
func (f facts) prospect(with string) Prospect {
	p, d := Prospect{With: with}, plan(f)
	switch {
	case d.factor != FactorNone:
		p.Outcome, p.Factor = Accepted.String(), d.factor
	case d.lacks == "":
		p.Outcome, p.Factor = Accepted.String(), FactorNone
	case f.mode == Observe:
		p.Outcome, p.Factor, p.Detail = Accepted.String(), FactorNone, "observe mode; else refused: "+string(d.lacks)
	default:
		p.Outcome, p.Reason = Refused.String(), d.lacks
	}
	return p
}

func (d *Directory) explainAppPasswords(ctx context.Context, e *Explanation, source netip.Addr, master bool) (Prospect, error) {
	list, err := d.Records.AppPasswords(ctx, e.Account)
	if err != nil {
		return Prospect{}, fmt.Errorf("auth: reading the app passwords of %s: %w", e.Account, err)
	}
	p := Prospect{With: "an app password", Outcome: Refused.String(), Reason: UnknownAppPassword, Detail: "it has none"}
	for _, app := range list {
		switch reason := app.refuses(source, d.now(), master); {
		case reason == "":
			e.AppPasswords++
		case e.AppPasswords == 0: // the newest one's
			p.Reason, p.Detail = reason, fmt.Sprintf("%q", app.Label)
		}
	}
	if e.AppPasswords > 0 {
		p = Prospect{With: p.With, Outcome: Accepted.String(), Factor: FactorAppPassword}
	}
	return p, nil
}

package main

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"imapwarden/admin"
	"imapwarden/auth"
	"imapwarden/configs"
	"imapwarden/policy"
	"imapwarden/proxy"
)

// sessions are a proxy's, as administrators see them.
type sessions struct{ proxy *proxy.Server }

// Sessions returns those that are logged in, oldest first.
func (s sessions) Sessions() (list []admin.Session) {
	for _, info := range s.proxy.Sessions() {
		list = append(list, session(info))
	}
	return list
}

// EndSession ends one, and says whose it was.
func (s sessions) EndSession(id string) (admin.Session, bool) {
	info, ok := s.proxy.EndSession(id)
	return session(info), ok
}

// EndAccount ends all of an account's, and returns how many there were.
func (s sessions) EndAccount(account string) int {
	return s.proxy.Revoke(auth.Revocation{Account: account, All: true})
}

func session(info proxy.SessionInfo) admin.Session {
	return admin.Session{
		ID:          info.ID,
		Account:     info.Account,
		Source:      info.Source,
		Program:     info.Program,
		Factor:      string(info.Factor),
		AppPassword: info.AppPassword,
		ReadOnly:    info.ReadOnly,
		Upstream:    info.Upstream,
		Began:       info.Began,
		FromClient:  info.FromClient,
		ToClient:    info.ToClient,
	}
}

// explain puts together what rules, limits and records say of a login.
func (w *warden) explain(ctx context.Context, account string, source netip.Addr) (admin.Explanation, error) {
	account, err := w.proxy.Names.Canonical(account)
	if err != nil {
		return admin.Explanation{}, err
	}
	e, err := explanation(ctx, w.config, w.proxy.Rules, w.admin.Directory, account, source)
	limits := w.proxy.Policy.Explain(policy.Attempt{Addr: source, Account: account})
	e.Limits = &limits
	return e, err
}

// explanation is one without the limits, whose counts a running server alone knows.
func explanation(ctx context.Context, config *configs.Config, rules policy.Rules, d *auth.Directory, account string, source netip.Addr) (e admin.Explanation, err error) {
	e.Account, e.Source = account, source
	e.Rule = rules.Match(policy.Subject{Account: account, Addr: source, Time: time.Now()})
	e.Unread = unread(rules, e.Rule)
	mode := auth.Mode(cmp.Or(e.Rule.SecondFactor, config.MFA.Mode))
	e.Login, err = d.Explain(ctx, account, source, mode, hasMaster(config, account))
	return e, err
}

// unread names the settings whose files the ruling's rule needs and has no version of, where that is
// why it denies: a rule whose files are there says no by itself.
func unread(rules policy.Rules, ruling policy.Ruling) (keys []string) {
	i := slices.IndexFunc(rules, func(r policy.Rule) bool { return r.Name == ruling.Rule })
	if i < 0 || !ruling.Denied {
		return nil
	}
	r := &rules[i]
	if len(r.Countries) > 0 && !has(r.Geo.Countries) {
		keys = append(keys, "geo.countries")
	}
	if len(r.Owners) > 0 && !has(r.Geo.Owners) {
		keys = append(keys, "geo.owners")
	}
	return keys
}

func has[T any](file *policy.File[T]) bool {
	_, ok := file.Value()
	return ok
}

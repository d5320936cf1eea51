package main

import (
	"context"
	"encoding/binary"
	"net/netip"
	"time"

	"imapwarden/policy"
)

// product is policy.Gate with its default limits, asked as the proxy asks it, before a model of the
// second factor.
type product struct {
	world    *World
	optional bool // only who has enrolled needs a second factor
	gate     *policy.Gate
	factors  *factors

	now     time.Duration
	noticed string // by the login under way
	kept    queue[*policy.Trial]
	secret  []byte
	front   []byte
}

// midnight is when the measured day begins: a Tuesday.
var midnight = time.Date(2026, time.January, 6, 0, 0, 0, 0, time.UTC)

// refusalDelay is mfa.refusal_delay's default.
const refusalDelay = 2 * time.Second

// over is a context of somebody who doesn't wait: those who wait are the replay's to keep.
var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func newProduct(w *World, optional, list bool) *product {
	p := &product{world: w, optional: optional, factors: newFactors()}
	p.gate = &policy.Gate{
		Limits: policy.Limits{Trusted: []netip.Prefix{netip.PrefixFrom(webmail, 32)}},
		Now:    func() time.Time { return midnight.Add(p.now) },
		Alert: func(a policy.Alert) {
			if p.noticed == "" {
				p.noticed = a.Signal
			}
		},
	}
	if list {
		p.gate.Common = commonList{}
	}
	return p
}

// commonList is the list of common passwords, for passwords.file.
type commonList struct{}

// Has says whether the password is one of them.
func (commonList) Has(password []byte) bool {
	return len(password) == 4 && Secret(binary.BigEndian.Uint32(password)) <= commonPasswords
}

func (p *product) Name() string {
	if p.optional {
		return "imapwarden, optional"
	}
	return "imapwarden, required"
}

// enrolled says whether the account has a second factor.
func (p *product) enrolled(l *Login) bool {
	return l.Account >= 0 && (!p.optional || p.world.Accounts[l.Account].enrolled)
}

// Login goes through proxy/attempt.go's steps.
func (p *product) Login(planned *Login) Answer {
	p.now, p.noticed = planned.At, ""
	for trial, ok := p.kept.due(p.now); ok; trial, ok = p.kept.due(p.now) {
		trial.Release()
	}
	l := *planned
	if !p.enrolled(&l) && l.From == 0 { // they have nothing but their password
		l.AppPassword, l.Secret = false, p.plain(&l)
		l.Code, l.Digits = NoCode, 0
	}
	p.secret, p.front = l.text(p.secret[:0], true), nil
	if l.Digits > 0 {
		p.front = p.secret[:len(p.secret)-6]
	}
	d, trial := p.gate.Begin(policy.Attempt{
		Addr: l.Addr, Account: p.world.name(&l), AppPassword: l.AppPassword, Secret: p.secret, Front: p.front,
	})
	if !d.Allowed {
		return p.answer(Answer{Signal: d.Signal, Busy: d.Signal == policy.TarpitBusy})
	}
	answer := p.judge(&l, d, trial)
	if last := trial.Tarpit(); !answer.In && last > refusalDelay {
		answer.Took, answer.Delayed = last, last-refusalDelay
		p.kept.add(p.now+last, trial)
	} else {
		trial.Release()
	}
	return p.answer(answer)
}

// plain is the password that an account without a second factor brings: its own, or what somebody has mistyped or
// a device has kept.
func (p *product) plain(l *Login) Secret {
	if l.AppPassword {
		if l.Secret == appPassword+Secret(l.Device) {
			return p.world.Accounts[l.Account].password(l.At)
		}
		return mistyped + Secret(l.Account)
	}
	return l.Secret
}

// answer completes one.
func (p *product) answer(a Answer) Answer {
	if a.Noticed = p.noticed; a.Noticed == "" && a.Signal != policy.Unproved && a.Signal != policy.Repeated {
		a.Noticed = a.Signal
	}
	if !a.In && a.Took == 0 {
		a.Took = refusalDelay
	}
	return a
}

// evidence is what the login brings beside its password.
func (p *product) evidence(l *Login, demand policy.Demand) policy.Evidence {
	enrolled := p.enrolled(l)
	switch {
	case l.AppPassword:
		return policy.Granted
	case !enrolled && p.optional && demand == policy.DemandNothing:
		return policy.PasswordAlone
	case !enrolled:
		return policy.Nothing
	case l.Code == FreshCode:
		return policy.RightCode
	case demand < policy.DemandFreshCode && p.factors.grants(l):
		return policy.Granted
	}
	return policy.Nothing
}

// judge weighs what the login brings, asks the upstream, and tells policy what became of it.
func (p *product) judge(l *Login, d policy.Decision, trial *policy.Trial) (answer Answer) {
	right := p.world.isRight(l) && (p.enrolled(l) || l.Digits == 0) // or else the digits are part of the password
	if l.AppPassword {
		if right {
			trial.Succeeded(nil)
			return Answer{In: true, Reached: true}
		}
		return Answer{} // revoked: it was good once, and is charged nowhere
	}
	evidence := p.evidence(l, d.Demand)
	if evidence == policy.Nothing && p.evidence(l, policy.DemandNothing) != policy.Nothing {
		answer.Demand = d.Why
	}
	failure := policy.Failure{Password: p.secret, Code: l.Digits > 0, Unknown: !p.enrolled(l)}
	if p.enrolled(l) && p.front != nil {
		failure.Password = p.front
	}
	w := trial.Weigh(over, evidence)
	if !w.Allowed {
		trial.Failed(failure)
		answer.Signal = w.Signal
		return answer
	}
	answer.Reached = true
	if right && evidence != policy.Nothing {
		trial.Succeeded(failure.Password)
		p.factors.enter(l)
		answer.In, answer.Demand = true, ""
		return answer
	}
	if failure.Right = right; !p.isStale(l, right) {
		trial.Failed(failure)
	}
	return answer
}

// isStale says whether the refusal is that of a code that was right once, where the owner has been: that is no guess.
func (p *product) isStale(l *Login, right bool) bool {
	_, was := p.factors.networks[atNetwork{l.Account, grantNetwork(l.Addr)}]
	return right && l.Code == StaleCode && was
}

package e2e

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const crashRounds = 8 // of each action

// A crash is a warden that is killed again and again in the middle of an action.
type crash struct {
	*warden
	startup time.Duration // of a command, before it does anything
	sources int
}

// Killed at any moment, imapwarden has done what it said that it did, and the rest wholly or
// not at all: no code counts twice, no app password that was shown is lost, none that was
// revoked comes back, and every secret opens.
func TestKillAtAnyMoment(t *testing.T) {
	t.Parallel()
	for name, round := range map[string]func(c *crash, round int){
		"enrolment":     (*crash).enrolment,
		"codes":         (*crash).codes,
		"sealing":       (*crash).sealing,
		"app passwords": (*crash).appPasswords,
		"key rotation":  (*crash).rotation,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &crash{warden: startWarden(t, settings{}), startup: time.Hour}
			for range 3 {
				began := time.Now()
				c.command("version")
				c.startup = min(c.startup, time.Since(began))
			}
			for i := range crashRounds {
				round(c, i)
				c.verifies()
				if t.Failed() {
					t.Fatalf("in round %d", i+1)
				}
			}
			// This opens every authenticator's secret.
			c.rotate()
			c.rotate()
			c.verifies()
		})
	}
}

// during kills the server up to 80 ms after an action has begun, which it does once its own
// program has started, and starts it again once the action knows what came of it.
func (c *crash) during(startup time.Duration, action func()) {
	c.t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		action()
	}()
	time.Sleep(startup + rand.N(80*time.Millisecond))
	c.kill()
	<-ended
	c.start()
}

// duringCommand is during a command.
func (c *crash) duringCommand(input string, args ...string) (out []byte, err error) {
	c.t.Helper()
	c.during(c.startup, func() { out, err = c.run(input, args...) })
	return out, err
}

// unseen returns an address in a network that nobody has come from.
func (c *crash) unseen() string {
	c.sources++
	return fmt.Sprintf("127.1.%d.1", c.sources)
}

// enrolment: what was printed counts; what wasn't can be begun anew.
func (c *crash) enrolment(int) {
	a := c.upstream.newAccount(c.t, anyPassword())
	out, err := c.duringCommand("", "account", "enroll", a.name, "--confirmed", "--json")
	if err == nil {
		c.readEnrolment(a, out)
	} else {
		if _, err := c.run("", "account", "enroll", a.name, "--confirmed", "--json"); err != nil && !strings.Contains(err.Error(), "already enrolled") {
			c.t.Error(err)
		}
		c.command("account", "reset", a.name)
		c.enroll(a)
	}
	c.accepts(a, home, a.withCode(c.t))
	c.accepts(a, c.unseen(), a.withRecovery(c.t))
}

// codes: one that somebody read OK for is accepted nowhere else, whatever kind it is of.
func (c *crash) codes(round int) {
	a := c.enrolled(anyPassword())
	secret := a.withCode(c.t)
	if round%2 == 1 {
		secret = a.withRecovery(c.t)
	}
	var answer string
	c.during(0, func() { answer, _ = tryLogin(home, c.implicit, a.name, secret) })
	if strings.HasPrefix(answer, "OK") {
		c.rejects(a, c.unseen(), secret, "replayed-code")
	}
	// Spent or not, it was from here that it was shown: its grant was written with it.
	c.accepts(a, home, secret)
	c.rejects(a, c.unseen(), secret, "replayed-code")
	c.accepts(a, home, a.password)
}

// sealing: after the OK that the account's owner reads, the app password works.
func (c *crash) sealing(int) {
	a := c.enrolled(anyPassword())
	app := c.appPassword(a, "")
	secret := a.withCode(c.t)
	var answer string
	c.during(0, func() { answer, _ = tryLogin(home, c.implicit, a.name, secret) })
	if !strings.HasPrefix(answer, "OK") {
		_, r := c.login(a, home, app.Password)
		if sealed := r.is("OK"); !sealed && c.lastLogin(a).Reason != "password-not-sealed" {
			c.t.Errorf("the app password before a good login: %s", r.line)
		}
		c.accepts(a, c.unseen(), a.withRecovery(c.t))
	}
	c.accepts(a, c.unseen(), app.Password).holdsMailOf(a)
}

// appPasswords: one that was printed works, and one that was said to be revoked doesn't.
func (c *crash) appPasswords(round int) {
	a := c.upstream.newAccount(c.t, anyPassword())
	kept := c.appPassword(a, a.password)
	if round%2 == 0 {
		var app appPassword
		var err error
		c.during(c.startup, func() { app, err = c.tryAppPassword(a, a.password) })
		if err == nil {
			c.accepts(a, c.unseen(), app.Password).holdsMailOf(a)
		}
	} else {
		app := c.appPassword(a, a.password)
		if _, err := c.duringCommand("", "app-password", "revoke", a.name, app.ID); err != nil {
			if _, err := c.run("", "app-password", "revoke", a.name, app.ID); err != nil && !strings.Contains(err.Error(), "refused:") {
				c.t.Error(err)
			}
		}
		c.rejects(a, c.unseen(), app.Password, "revoked-app-password")
	}
	c.accepts(a, c.unseen(), kept.Password).holdsMailOf(a)
}

// rotation: whatever was sealed or tagged with whichever key is known.
func (c *crash) rotation(int) {
	a, device := c.enrolled(anyPassword()), c.upstream.newAccount(c.t, anyPassword())
	app := c.appPassword(device, device.password)
	c.accepts(a, home, a.withRecovery(c.t))
	c.duringCommand("", "key", "rotate") // it says that it failed, mostly
	c.accepts(a, home, a.password)
	c.accepts(a, c.unseen(), a.withCode(c.t))
	c.accepts(device, c.unseen(), app.Password).holdsMailOf(device)
}

package proxy

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"imapwarden/auth"
)

// many opens a session of each kind: of alice by app password, by code, and by grant, and one of
// bob. IDs are those of what they live under.
type many struct {
	app, code, grant, bob *peer
	appPassword, appID    string
	grantIDs              []string
}

func (r *rig) many() many {
	r.t.Helper()
	var m many
	secret := r.enroll("alice")
	issued := r.issue(auth.NewAppPassword{Account: "alice", Password: auth.Secret("secret")})
	m.appPassword, m.appID = issued.Password, issued.ID
	m.app = r.enter(elsewhere, "alice", m.appPassword)
	m.code = r.enter(home, "alice", "secret"+r.code(secret))
	m.grant = r.enter(neighbour, "alice", "secret")
	m.bob = r.enter(home, "bob", "secret"+r.code(r.enroll("bob")))
	m.grantIDs = r.grantIDs("alice")
	return m
}

func (r *rig) grantIDs(account string) (ids []string) {
	r.t.Helper()
	grants, err := r.store.Grants(r.t.Context(), account)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, g := range grants {
		ids = append(ids, g.ID)
	}
	return ids
}

// wantAlive fails where the session is over, or isn't.
func (p *peer) wantAlive(alive bool) {
	p.t.Helper()
	if !alive {
		p.wantEnd()
		return
	}
	p.send("n NOOP\r\n")
	p.want(`\* ECHO NOOP`, "n OK done")
	p.Close()
}

// What is taken away ends the sessions under it at once, and no others.
func TestRevoke(t *testing.T) {
	const app, code, grant, bob = 1, 2, 4, 8
	tests := []struct {
		name   string
		revoke func(r *rig, m many) auth.Revocation
		ends   int
	}{
		{"all", func(*rig, many) auth.Revocation { return auth.Revocation{Account: "alice", All: true} }, app | code | grant},
		{"main logins", func(*rig, many) auth.Revocation { return auth.Revocation{Account: "alice", MainLogins: true} }, code | grant},
		{"grants", func(_ *rig, m many) auth.Revocation { return auth.Revocation{Account: "alice", Grants: m.grantIDs} }, code | grant},
		{"an app password", func(_ *rig, m many) auth.Revocation {
			return auth.Revocation{Account: "alice", AppPassword: m.appID}
		}, app},
		{"another's", func(_ *rig, m many) auth.Revocation {
			return auth.Revocation{Account: "carol", All: true, Grants: m.grantIDs, AppPassword: m.appID}
		}, 0},
		{"bob's", func(*rig, many) auth.Revocation { return auth.Revocation{Account: "bob", All: true} }, bob},
		{"nothing", func(*rig, many) auth.Revocation { return auth.Revocation{Account: "alice"} }, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in(t, func(r *rig) {
				m := r.many()
				synctest.Wait()
				waiting := r.connectTLS(home)
				began := time.Now()
				n := r.Revoke(test.revoke(r, m))
				want := 0
				for i, p := range []*peer{m.app, m.code, m.grant, m.bob} {
					ends := test.ends&(1<<i) != 0
					p.wantAlive(!ends)
					if ends {
						want++
					}
				}
				if n != want {
					t.Errorf("%d sessions ended, it says, want %d", n, want)
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("it took %v", took)
				}
				waiting.send("n NOOP\r\n")
				waiting.want("n OK .*")
				waiting.hangUp()
				revoked := 0
				for _, line := range r.sessionLines() {
					if line.ContextMap()["end"] == string(endRevoked) {
						revoked++
					}
				}
				if revoked != want {
					t.Errorf("%d sessions ended so in the log, want %d", revoked, want)
				}
			})
		})
	}
}

// Administration ends sessions too.
func TestDirectoryEndsSessions(t *testing.T) {
	for name, test := range map[string]struct {
		change    func(r *rig, m many) error
		app, main bool // live on
	}{
		"app password revoked": {func(r *rig, m many) error { return r.directory.RevokeAppPassword(r.t.Context(), "alice", m.appID) }, false, true},
		"grants revoked": {func(r *rig, _ many) error {
			_, err := r.directory.RevokeGrants(r.t.Context(), "alice")
			return err
		}, true, false},
		"account reset":   {func(r *rig, _ many) error { return r.directory.Reset(r.t.Context(), "alice") }, true, false},
		"account removed": {func(r *rig, _ many) error { return r.directory.Remove(r.t.Context(), "alice") }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(r *rig) {
				m := r.many()
				if err := test.change(r, m); err != nil {
					t.Fatal(err)
				}
				m.app.wantAlive(test.app)
				m.code.wantAlive(test.main)
				m.grant.wantAlive(test.main)
				m.bob.wantAlive(true)
			})
		})
	}
}

// A login is refused whose right to be here is taken away while the upstream thinks, also where
// the records knew nothing of it when it was asked for the second time.
func TestRevokedOnTheWay(t *testing.T) {
	byApp := func(_ *rig, m many) string { return m.appPassword }
	byGrant := func(*rig, many) string { return "secret" }
	tests := []struct {
		name   string
		secret func(*rig, many) string
		revoke func(*rig, many)
		reason string // "": it comes in
	}{
		{"account", byApp, func(r *rig, _ many) { r.Revoke(auth.Revocation{Account: "alice", All: true}) }, reasonRevoked},
		{"app password", byApp, func(r *rig, m many) { r.Revoke(auth.Revocation{Account: "alice", AppPassword: m.appID}) }, reasonRevoked},
		{"app password, in the records", byApp, func(r *rig, m many) {
			if err := r.directory.RevokeAppPassword(r.t.Context(), "alice", m.appID); err != nil {
				r.t.Fatal(err)
			}
		}, "revoked-app-password"},
		{"grant", byGrant, func(r *rig, m many) { r.Revoke(auth.Revocation{Account: "alice", Grants: m.grantIDs}) }, reasonRevoked},
		{"grant, in the records", byGrant, func(r *rig, _ many) {
			if _, err := r.directory.RevokeGrants(r.t.Context(), "alice"); err != nil {
				r.t.Fatal(err)
			}
		}, "expired"},
		{"main logins", byGrant, func(r *rig, _ many) { r.Revoke(auth.Revocation{Account: "alice", MainLogins: true}) }, reasonRevoked},
		{"main logins, for an app password", byApp, func(r *rig, _ many) { r.Revoke(auth.Revocation{Account: "alice", MainLogins: true}) }, ""},
		{"another account", byGrant, func(r *rig, m many) { r.Revoke(auth.Revocation{Account: "bob", All: true, Grants: m.grantIDs}) }, ""},
		{"forgotten by others", byGrant, func(r *rig, m many) {
			r.Revoke(auth.Revocation{Account: "alice", Grants: m.grantIDs})
			for range 100 {
				r.Revoke(auth.Revocation{Account: "carol", All: true})
			}
		}, reasonRevoked},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in(t, func(r *rig) {
				m := r.many()
				for _, p := range []*peer{m.app, m.code, m.grant, m.bob} {
					p.hangUp()
				}
				time.Sleep(time.Minute)
				r.upstream.hold = make(chan struct{})
				p := r.connectTLS(home)
				p.send("l LOGIN alice {%d+}\r\n%s\r\n", len(test.secret(r, m)), test.secret(r, m))
				synctest.Wait()
				time.Sleep(time.Second)
				test.revoke(r, m)
				close(r.upstream.hold)
				if test.reason == "" {
					p.want("l OK .*")
					p.wantAlive(true)
					return
				}
				line, err := p.line()
				if line == "* NO [ALERT] Second factor expired" { // alice has been here before
					line, err = p.line()
				}
				if line != failed {
					t.Errorf("got %q, %v", line, err)
				}
				if e := r.lastEvent(); e.Outcome != "refused" || e.Reason != test.reason {
					t.Errorf("audit: %+v", e)
				}
				if len(r.Sessions()) != 0 {
					t.Error("it is in the list of sessions")
				}
				p.hangUp()
			})
		})
	}
}

// What was revoked a moment ago doesn't stand in the way of a login that begins now.
func TestRevokedBefore(t *testing.T) {
	in(t, func(r *rig) {
		secret := r.enroll("alice")
		r.enter(home, "alice", "secret"+r.code(secret)).hangUp()
		r.Revoke(auth.Revocation{Account: "alice", All: true})
		time.Sleep(time.Nanosecond)
		r.enter(home, "alice", "secret").hangUp()
	})
}

// Old revocations are forgotten: nothing is on its way for that long.
func TestRevocationsAreForgotten(t *testing.T) {
	in(t, func(r *rig) {
		for range 100 {
			r.Revoke(auth.Revocation{Account: "alice", All: true})
			time.Sleep(10 * time.Second)
		}
		if n := len(r.revoked); n > 4 {
			t.Errorf("%d are kept", n)
		}
	})
}

// A password that was changed at the upstream ends the grants that know it, with their sessions,
// once the upstream has said so.
func TestChangedPasswordEndsSessions(t *testing.T) {
	in(t, func(r *rig) {
		m := r.many()
		r.upstream.password = "changed"
		if got := r.answer(home, "alice", "no password of hers"); got != failed {
			t.Fatal(got)
		}
		if got := len(r.Sessions()); got != 4 {
			t.Fatalf("a wrong password leaves %d sessions", got)
		}
		if got := r.answer(elsewhere, "alice", "secret"); got != failed { // wherever the old one is tried
			t.Fatal(got)
		}
		m.code.wantAlive(false)
		m.grant.wantAlive(false)
		m.app.wantAlive(true)
		m.bob.wantAlive(true)
		if ids := r.grantIDs("alice"); len(ids) > 0 {
			t.Error("there still are grants")
		}
	})
}

// Sessions shows those that are logged in, and no secret.
func TestSessions(t *testing.T) {
	in(t, func(r *rig) {
		r.connectTLS(home) // before login
		secret := r.enroll("alice")
		pair := "secret" + r.code(secret)
		first := r.connectTLS(home)
		first.send("i ID (\"name\" \"Mail\x7fprog\" \"version\" \"1.0\")\r\n")
		first.line()
		first.line()
		first.enter("alice", pair)
		time.Sleep(time.Minute)
		app := r.issue(auth.NewAppPassword{Account: "bob", Password: auth.Secret("secret"), ReadOnly: true})
		second := r.enter(elsewhere, "bob", app.Password)
		second.send("x NOOP\r\n")
		second.want(`\* ECHO NOOP`, "x OK done")
		synctest.Wait()

		list := r.Sessions()
		if len(list) != 2 {
			t.Fatalf("sessions: %+v", list)
		}
		want := []SessionInfo{
			{Account: "alice", Source: mustAddr(home).Addr(), Program: "Mail?prog 1.0", Factor: auth.FactorCode, Upstream: "test", Began: time.Now().Add(-time.Minute)},
			{
				Account: "bob", Source: mustAddr(elsewhere).Addr(), Factor: auth.FactorAppPassword, AppPassword: app.ID, ReadOnly: true,
				Upstream: "test", Began: time.Now(), FromClient: int64(len("x NOOP\r\n")), ToClient: int64(len("* ECHO NOOP\r\nx OK done\r\n")),
			},
		}
		for i := range want {
			want[i].ID = list[i].ID
		}
		if !slices.Equal(list, want) {
			t.Errorf("sessions: %+v, want %+v", list, want)
		}
		r.wantNowhere(app.Password, "secret"+r.code(secret), r.code(secret))
		first.hangUp()
		second.hangUp()
		if list := r.Sessions(); len(list) != 0 {
			t.Errorf("afterwards: %+v", list)
		}
	})
}

func TestEndSession(t *testing.T) {
	in(t, func(r *rig) {
		m := r.many()
		synctest.Wait()
		list := r.Sessions()
		i := slices.IndexFunc(list, func(s SessionInfo) bool { return s.Account == "bob" })
		if info, ok := r.EndSession(list[i].ID); !ok || info.Account != "bob" {
			t.Errorf("EndSession: %+v, %v", info, ok)
		}
		if info, ok := r.EndSession("nobody's"); ok || info.Account != "" {
			t.Errorf("EndSession of none: %+v, %v", info, ok)
		}
		m.bob.wantAlive(false)
		for _, p := range []*peer{m.app, m.code, m.grant} {
			p.wantAlive(true)
		}
		synctest.Wait()
		if _, ok := r.EndSession(list[i].ID); ok {
			t.Error("it ends twice")
		}
	})
}

// A session ends at once while the upstream is in the middle of a literal, and while the client
// doesn't read.
func TestRevokeWhileBusy(t *testing.T) {
	in(t, func(r *rig) {
		secret := r.enroll("alice")
		p := r.enter(home, "alice", "secret"+r.code(secret))
		p.send("x HANG\r\n")
		synctest.Wait()
		unread := r.enter(neighbour, "alice", "secret")
		unread.send("x NOOP\r\n") // whose answer nobody reads
		synctest.Wait()
		if n := r.Revoke(auth.Revocation{Account: "alice", All: true}); n != 2 {
			t.Errorf("%d sessions end", n)
		}
		synctest.Wait()
		if list := r.Sessions(); len(list) != 0 {
			t.Errorf("sessions: %+v", list)
		}
		p.wantAlive(false)
		unread.Close()
	})
}

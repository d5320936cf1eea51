package proxy

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imapwarden/auth"
)

// introduce sends ID and reads what comes back.
func (p *peer) introduce(fields string) {
	p.t.Helper()
	p.send("i ID (%s)\r\n", fields)
	for {
		line, err := p.line()
		if err != nil {
			p.t.Fatal(err)
		}
		if strings.HasPrefix(line, "i OK") {
			return
		}
	}
}

func (r *rig) programEvents() (list []string) {
	for _, e := range r.audit() {
		if e.Kind == "session.program" {
			list = append(list, fmt.Sprintf("%s %s %s %s", e.Account, e.Factor, e.Program, e.Source))
		}
	}
	return list
}

// What a program says of itself before login is in the login's event; what it says afterwards
// completes that, once a day for each account, factor and program.
func TestProgram(t *testing.T) {
	in(t, func(r *rig) {
		const mailprog, tool = `"name" "Mailprog" "version" "1.0"`, `"name" "Tool"`
		secret := r.enroll("alice")
		wantEvents := func(want int) {
			t.Helper()
			if got := r.programEvents(); len(got) != want {
				t.Errorf("events: %q, want %d", got, want)
			}
		}

		p := r.connectTLS(home)
		p.introduce(mailprog)
		p.enter("alice", "secret"+r.code(secret))
		if e := r.lastEvent(); e.Kind != "login" || e.Program != "Mailprog 1.0" {
			t.Errorf("audit: %+v", e)
		}
		wantEvents(0)
		if got := r.Sessions()[0].Program; got != "Mailprog 1.0" {
			t.Errorf("before login: %q", got)
		}
		p.introduce(tool)
		synctest.Wait()
		if got := r.Sessions()[0].Program; got != "Tool" {
			t.Errorf("after login: %q", got)
		}
		wantEvents(1)
		if got := r.programEvents()[0]; got != "alice code Tool 198.51.100.7" {
			t.Errorf("event: %s", got)
		}
		p.hangUp()
		if got := r.logs.FilterMessage("session").All()[0].ContextMap()["program"]; got != "Tool" {
			t.Errorf("log: %v", got)
		}

		for i := range 5 { // each of its connections says so
			p := r.enter(neighbour, "alice", "secret")
			p.introduce(`"os" "Linux"`) // nothing of its name
			p.introduce(tool)
			p.introduce(mailprog) // it can't be another one in the same session
			p.hangUp()
			if i == 0 {
				wantEvents(2) // by grant now
			}
		}
		wantEvents(2)
		time.Sleep(24 * time.Hour)
		p = r.enter(home, "alice", "secret"+r.code(secret))
		p.introduce(tool)
		p.hangUp()
		wantEvents(3)
	})
}

// What a client says of itself stays short and printable.
func TestProgramIsCut(t *testing.T) {
	in(t, func(r *rig) {
		app := r.issue(auth.NewAppPassword{Account: "alice", Password: auth.Secret("secret")})
		p := r.enter(home, "alice", app.Password)
		p.introduce(`"name" "` + strings.Repeat("n", 500) + "\x1b[31m" + `" "version" "1"`)
		synctest.Wait()
		if got := r.Sessions()[0].Program; got != strings.Repeat("n", 100) {
			t.Errorf("program: %q", got)
		}
		p.hangUp()
	})
}

// Who has an account and invents programs fills neither our memory nor the audit.
func TestProgramsAreBounded(t *testing.T) {
	s, now := new(Server), time.Now()
	key := func(i int) programKey { return programKey{"code", fmt.Sprint("program ", i)} }
	for i := range 100 {
		if told := s.newProgram("alice", key(i), now); told != (i < maxNames) || s.newProgram("alice", key(i), now) {
			t.Errorf("program %d: %v", i, told)
		}
	}
	now = now.Add(programDay)
	if !s.newProgram("alice", key(100), now) {
		t.Error("a new day brings no new program")
	}
	for i := range maxPrograms {
		if !s.newProgram(fmt.Sprint("account", i), key(0), now) || len(s.programs) > maxPrograms {
			t.Fatalf("account %d: not told, or %d remembered", i, len(s.programs))
		}
	}
}

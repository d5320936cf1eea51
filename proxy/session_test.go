package proxy

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"imapwarden/policy"
)

const (
	home      = "198.51.100.7:4000"
	neighbour = "198.51.100.8:4000" // the same /24
	elsewhere = "203.0.113.9:4000"
)

func mustAddr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

const failed = "l NO [AUTHENTICATIONFAILED] Authentication failed"

func TestLoginWithPasswordAndCode(t *testing.T) {
	in(t, func(r *rig) {
		secret := r.enroll("alice")
		p := r.connectTLS(home)
		got := p.login("alice", "secret"+r.code(secret))
		if want := "l OK [CAPABILITY IMAP4rev1 IDLE MOVE] Logged in"; got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		p.send("x SELECT INBOX\r\n")
		p.want(`\* ECHO SELECT INBOX`, "x OK done")
		p.hangUp()
		if got := r.events(); !slices.Equal(got, []string{"accepted  code"}) {
			t.Errorf("audit: %q", got)
		}
	})
}

// Where the upstream takes its time over wrong passwords, a right one without a second
// factor is refused as late.
func TestRefusalsKeepTheUpstreamsPace(t *testing.T) {
	for name, password := range map[string]string{"wrong": "wrong", "right": "secret"} {
		t.Run(name, func(t *testing.T) {
			in(t, func(r *rig) {
				r.enroll("alice")
				r.upstream.slowNo = 2100 * time.Millisecond
				*r.Route("") = Upstream{Name: "slow", TLS: UpstreamPlain, Dial: r.upstream.dial}
				r.Route("").pace.noteNo(r.upstream.slowNo, time.Second) // it has said no before
				for i := range 3 {
					p := r.connectTLS(home)
					began := time.Now()
					if got := p.login("alice", password); got != failed {
						t.Fatal(got)
					}
					if took := time.Since(began); took != 5*time.Second {
						t.Errorf("refusal %d after %v", i, took)
					}
					p.hangUp()
				}
			})
		})
	}
}

// Two connections with the same wrong password and a code share the upstream's no, if the code is
// right; if it isn't, each hears its own. Nobody learns from the second one's time which it was.
func TestSharedRefusalsKeepThePace(t *testing.T) {
	for _, right := range []bool{true, false} {
		in(t, func(r *rig) {
			code := "000000"
			if secret := r.enroll("alice"); right {
				code = r.code(secret)
			}
			r.upstream.slowNo = 2100 * time.Millisecond
			*r.Route("") = Upstream{Name: "slow", TLS: UpstreamPlain, Dial: r.upstream.dial}
			r.Route("").pace.noteNo(r.upstream.slowNo, time.Second)
			first, second := r.connectTLS(home), r.connectTLS(home)
			var both sync.WaitGroup
			both.Go(func() { first.login("alice", "wrong"+code) })
			time.Sleep(2 * time.Second) // just before the first is answered
			began := time.Now()
			if got := second.login("alice", "wrong"+code); got != failed {
				t.Fatal(got)
			}
			if took := time.Since(began); took != 5*time.Second {
				t.Errorf("right code %v: refused after %v", right, took)
			}
			both.Wait()
			first.hangUp()
			second.hangUp()
		})
	}
}

func TestThirdRefusalEndsTheConnection(t *testing.T) {
	in(t, func(r *rig) {
		p := r.connectTLS(home)
		for range 3 {
			if got := p.login("alice", "wrong"); got != failed {
				t.Fatal(got)
			}
		}
		p.want(`\* BYE .*`)
		p.wantEnd()
	})
}

// After password and code the password alone, or the same stale pair, is enough from the
// same network; a replay from elsewhere isn't.
func TestFirstGrant(t *testing.T) {
	in(t, func(r *rig) {
		secret := r.enroll("alice")
		pair := "secret" + r.code(secret)
		login := func(from, password string) bool {
			p := r.connectTLS(from)
			defer p.hangUp()
			return strings.HasPrefix(p.login("alice", password), "l OK")
		}
		if login(home, "secret") {
			t.Fatal("the password alone let somebody in")
		}
		if !login(home, pair) {
			t.Fatal("password and code were refused")
		}
		time.Sleep(30 * time.Minute)
		if !login(neighbour, "secret") || !login(home, pair) {
			t.Error("the grant doesn't hold")
		}
		if login(elsewhere, pair) || login(elsewhere, "secret") {
			t.Error("a grant holds where it wasn't given")
		}
		if login(home, "wrong") {
			t.Error("a wrong password came in by a grant")
		}
		time.Sleep(12 * time.Hour)
		if login(home, "secret") || login(home, pair) {
			t.Error("the grant holds after its end")
		}
	})
}

// A mail program opens its connections at once: all get in, and the code is spent once.
func TestParallelLogins(t *testing.T) {
	in(t, func(r *rig) {
		pair := "secret" + r.code(r.enroll("alice"))
		var wg sync.WaitGroup
		var mu sync.Mutex
		answers := map[string]int{}
		for range 15 {
			wg.Go(func() {
				p := r.connectTLS(home)
				word := strings.Fields(p.login("alice", pair))[1]
				mu.Lock()
				answers[word]++
				mu.Unlock()
				p.Close()
			})
		}
		wg.Wait()
		if answers["OK"] != 15 {
			t.Errorf("answers: %v", answers)
		}
		codes := 0
		for _, e := range r.events() {
			if e == "accepted  code" {
				codes++
			}
		}
		if codes != 1 {
			t.Errorf("the code was spent %d times", codes)
		}
		p := r.connectTLS(elsewhere)
		if got := p.login("alice", pair); got != failed {
			t.Errorf("a replay from elsewhere: %s", got)
		}
		p.hangUp()
	})
}

func TestModes(t *testing.T) {
	for mode, want := range map[string]string{
		"required": "refused not-enrolled none",
		"optional": "accepted  none",
		"observe":  "accepted  none",
		"":         "refused not-enrolled none",
	} {
		in(t, func(r *rig) {
			r.Mode = authMode(mode)
			p := r.connectTLS(home)
			p.login("bob", "secret")
			p.hangUp()
			if got := r.events(); !slices.Equal(got, []string{want}) {
				t.Errorf("mode %q: audit %q, want %q", mode, got, want)
			}
		})
	}
}

// LOGIN, SELECT and NOOP in one segment reach the upstream in order and whole.
func TestPipelining(t *testing.T) {
	in(t, func(r *rig) {
		pair := "secret" + r.code(r.enroll("alice"))
		p := r.connectTLS(home)
		p.send("l LOGIN alice %s\r\nx SELECT INBOX\r\ny NOOP\r\n", pair)
		p.want(`l OK .*`, `\* ECHO SELECT INBOX`, "x OK done", `\* ECHO NOOP`, "y OK done")
		p.hangUp()
	})
}

func TestPipelinedBehindARefusal(t *testing.T) {
	in(t, func(r *rig) {
		p := r.connectTLS(home)
		p.send("l LOGIN alice wrong\r\nx SELECT INBOX\r\n")
		p.want(`l NO \[AUTHENTICATIONFAILED\] .*`, "x BAD .*")
		p.hangUp()
		if slices.ContainsFunc(r.upstream.commands, func(c string) bool { return strings.Contains(c, "SELECT") }) {
			t.Error("a command behind a refused login reached the upstream")
		}
	})
}

func TestSASL(t *testing.T) {
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, converse := range map[string]func(p *peer, secret string){
		"PLAIN with initial response": func(p *peer, secret string) {
			p.send("l AUTHENTICATE PLAIN %s\r\n", encode("\x00alice\x00"+secret))
		},
		"PLAIN without": func(p *peer, secret string) {
			p.send("l AUTHENTICATE PLAIN\r\n")
			p.want(`\+ `)
			p.send("%s\r\n", encode("\x00alice\x00"+secret))
		},
		"PLAIN with the own authzid": func(p *peer, secret string) {
			p.send("l authenticate plain %s\r\n", encode("alice\x00alice\x00"+secret))
		},
		"LOGIN": func(p *peer, secret string) {
			p.send("l AUTHENTICATE LOGIN\r\n")
			p.want(`\+ ` + encode("Username:"))
			p.send("%s\r\n", encode("alice"))
			p.want(`\+ ` + encode("Password:"))
			p.send("%s\r\n", encode(secret))
		},
		"LOGIN with initial response": func(p *peer, secret string) {
			p.send("l AUTHENTICATE LOGIN %s\r\n", encode("alice"))
			p.want(`\+ ` + encode("Password:"))
			p.send("%s\r\n", encode(secret))
		},
		"LOGIN command, quoted": func(p *peer, secret string) {
			p.send("l LOGIN \"alice\" \"%s\"\r\n", secret)
		},
		"LOGIN command, synchronizing literals": func(p *peer, secret string) {
			p.send("l LOGIN {5}\r\n")
			p.want(`\+ OK`)
			p.send("alice {%d}\r\n", len(secret))
			p.want(`\+ OK`)
			p.send("%s\r\n", secret)
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(r *rig) {
				pair := "secret" + r.code(r.enroll("alice"))
				p := r.connectTLS(home)
				converse(p, pair)
				p.want("l OK .*")
				p.hangUp()
			})
		})
	}
}

// What the upstream is told: our ID first, with the client's address, then our own login.
func TestUpstreamHearsOurWordsOnly(t *testing.T) {
	in(t, func(r *rig) {
		pair := "secret" + r.code(r.enroll("alice"))
		p := r.connectTLS(home)
		p.send("i ID (\"name\" \"Mailprog\" \"x-originating-ip\" \"10.1.1.1\" \"version\" NIL)\r\n")
		p.want(`\* ID .*`, "i OK .*")
		p.send("l LOGIN ALICE %s\r\n", pair)
		p.want("l OK .*")
		p.hangUp()
		if len(r.upstream.commands) != 2 {
			t.Fatalf("commands: %q", r.upstream.commands)
		}
		id, login := r.upstream.commands[0], r.upstream.commands[1]
		for _, want := range []string{
			`"x-originating-ip" "198.51.100.7"`, `"x-originating-port" "4000"`,
			`"x-connected-ip" "192.0.2.1"`, `"x-connected-port" "993"`,
			`"x-proxy-ttl"`, `"x-session-id"`, `"name" "Mailprog"`,
		} {
			if !strings.Contains(id, want) {
				t.Errorf("the ID has no %s: %s", want, id)
			}
		}
		if strings.Contains(id, "10.1.1.1") {
			t.Errorf("a client forged its address: %s", id)
		}
		if want := " AUTHENTICATE PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00alice\x00secret")); !strings.HasSuffix(login, want) {
			t.Error("the login isn't the account's name and the bare password")
		}
	})
}

func TestForeignAuthzid(t *testing.T) {
	in(t, func(r *rig) {
		pair := "secret" + r.code(r.enroll("alice"))
		message := func(password string) string {
			return base64.StdEncoding.EncodeToString([]byte("bob\x00alice\x00" + password))
		}
		p := r.connectTLS(home)
		p.send("a AUTHENTICATE PLAIN %s\r\nb AUTHENTICATE PLAIN %s\r\n", message("wrong"), message(pair))
		p.want(`a NO \[AUTHENTICATIONFAILED\] .*`, `b NO \[AUTHORIZATIONFAILED\] .*`)
		p.hangUp()
	})
}

func TestShutdown(t *testing.T) {
	in(t, func(r *rig) {
		pair := "secret" + r.code(r.enroll("alice"))
		waiting, relayed := r.connectTLS(home), r.connectTLS(home)
		if got := relayed.login("alice", pair); !strings.HasPrefix(got, "l OK") {
			t.Fatal(got)
		}
		began := time.Now()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			r.Shutdown(after(t, time.Minute))
		}()
		waiting.want(`\* BYE .*`)
		waiting.wantEnd()
		relayed.send("x NOOP\r\n")
		relayed.want(`\* ECHO NOOP`, "x OK done")
		relayed.wantEnd() // at the deadline, and without a word
		<-ended
		if took := time.Since(began); took != time.Minute {
			t.Errorf("the relay was cut after %v", took)
		}
	})
}

// Every state has its deadline; what is sent slowly still works within it.
func TestDeadlines(t *testing.T) {
	t.Run("silence", func(t *testing.T) {
		in(t, func(r *rig) {
			p := r.connectTLS(home)
			began := time.Now()
			p.want(`\* BYE .*`)
			if took := time.Since(began); took != 30*time.Second {
				t.Errorf("silence was borne for %v", took)
			}
			p.wantEnd()
			if len(r.events()) != 0 {
				t.Error("silence counts as an attempt")
			}
		})
	})
	t.Run("stalled handshake", func(t *testing.T) {
		in(t, func(r *rig) {
			p := r.dial(home, false)
			began := time.Now()
			p.wantEnd()
			if took := time.Since(began); took != 10*time.Second {
				t.Errorf("closed after %v", took)
			}
		})
	})
	t.Run("slow command", func(t *testing.T) {
		in(t, func(r *rig) {
			p := r.connectTLS(home)
			for _, c := range []byte("a NOOP\r\n") {
				p.send("%c", c)
				time.Sleep(time.Second)
			}
			p.want("a OK .*")
			p.send("b NO")
			began := time.Now()
			p.want(`\* BYE .*`)
			if took := time.Since(began); took != 30*time.Second {
				t.Errorf("half a command was borne for %v", took)
			}
			p.wantEnd()
		})
	})
	t.Run("idle relay", func(t *testing.T) {
		in(t, func(r *rig) {
			pair := "secret" + r.code(r.enroll("alice"))
			p := r.connectTLS(home)
			if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
				t.Fatal(got)
			}
			time.Sleep(34 * time.Minute)
			p.send("x NOOP\r\n")
			p.want(`\* ECHO NOOP`, "x OK done")
			began := time.Now()
			p.wantEnd()
			if took := time.Since(began); took != 35*time.Minute {
				t.Errorf("idle for %v", took)
			}
		})
	})
	t.Run("upstream that hangs", func(t *testing.T) {
		in(t, func(r *rig) {
			r.upstream.script = hang
			p := r.connectTLS(home)
			began := time.Now()
			p.send("l LOGIN alice secret\r\n")
			p.want(`l NO \[UNAVAILABLE\] .*`)
			if took := time.Since(began); took != 15*time.Second {
				t.Errorf("answered after %v", took)
			}
			p.hangUp()
		})
	})
}

func TestConnectionCap(t *testing.T) {
	in(t, func(r *rig) {
		var open []*peer
		for range 40 {
			open = append(open, r.connectTLS(home))
		}
		r.dial(home, false).wantEnd()
		r.connectTLS(elsewhere).hangUp()
		for _, p := range open {
			p.hangUp()
		}
		r.connectTLS(home).hangUp()
	})
}

// Ten guesses a minute from one address, or five accounts that nobody knows, and the upstream has peace.
func TestTooManyGuesses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		account func(i int) string
		most    int
	}{
		{"one account", func(int) string { return "victim" }, 10},
		{"unknown accounts", func(i int) string { return fmt.Sprint("victim", i) }, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in(t, func(r *rig) {
				r.RefusalDelay = 0 // the limit refills with time
				guess := func(i int) string { return r.answer(home, tt.account(i), fmt.Sprint("wrong", i)) }
				for i := range tt.most {
					if got := guess(i); got != failed {
						t.Fatal(got)
					}
				}
				_, before := r.upstream.count()
				if got := guess(tt.most); !strings.HasPrefix(got, "l NO [UNAVAILABLE]") {
					t.Error(got)
				}
				if _, after := r.upstream.count(); after != before {
					t.Error("an attempt over the limit reached the upstream")
				}
			})
		})
	}
}

// Nothing that a session said or was asked stays in the log.
func TestNoSecretInLogs(t *testing.T) {
	in(t, func(r *rig) {
		code := r.code(r.enroll("alice"))
		for _, password := range []string{"hunter2-wrong", "secret" + code} {
			p := r.connectTLS(home)
			p.login("alice", password)
			p.hangUp()
		}
		synctest.Wait()
		for _, entry := range r.logs.All() {
			line := fmt.Sprint(entry.Message, entry.ContextMap())
			if strings.Contains(line, "hunter2") || strings.Contains(line, code) {
				t.Error("a secret is in the log")
			}
		}
		sessions := r.sessionLines()
		if len(sessions) != 2 {
			t.Errorf("%d lines for two sessions", len(sessions))
		}
	})
}

// Others' guesses don't lock the owner out, after a restart neither: who was here before
// is in the grants.
func TestOwnerIsNotLockedOutAfterRestart(t *testing.T) {
	in(t, func(r *rig) {
		r.RefusalDelay = 0
		secret := r.enroll("alice")
		p := r.connectTLS(home)
		if got := p.login("alice", "secret"+r.code(secret)); !strings.HasPrefix(got, "l OK") {
			t.Fatal(got)
		}
		p.hangUp()
		r.Policy = &policy.Gate{} // it has forgotten all
		for i := range 12 {
			p := r.connectTLS(elsewhere)
			p.login("alice", fmt.Sprint("guess", i))
			p.hangUp()
		}
		p = r.connectTLS(elsewhere)
		if got := p.login("alice", "another"); !strings.HasPrefix(got, "l NO [UNAVAILABLE]") {
			t.Fatalf("the guesser isn't limited: %s", got)
		}
		p.hangUp()
		p = r.connectTLS(neighbour)
		if got := p.login("alice", "secret"); !strings.HasPrefix(got, "l OK") {
			t.Errorf("the owner is locked out: %s", got)
		}
		p.hangUp()
	})
}

// A stale code with a right password is free where its owner has been, and a guess
// elsewhere, where the limits would tell by it that the password was right.
func TestStaleCodeElsewhereIsAGuess(t *testing.T) {
	in(t, func(r *rig) {
		r.RefusalDelay = 0
		secret := r.enroll("alice")
		stale := r.code(secret)
		p := r.connectTLS(home)
		if got := p.login("alice", "secret"+stale); !strings.HasPrefix(got, "l OK") {
			t.Fatal(got)
		}
		p.hangUp()
		time.Sleep(13 * time.Hour)
		for _, right := range []string{"secret" + stale, "other" + stale} {
			r.Policy = &policy.Gate{}
			var answers []string
			for i := range 9 {
				p := r.connectTLS(elsewhere)
				answers = append(answers, p.login("alice", fmt.Sprint("guess", i)))
				p.hangUp()
			}
			for _, password := range []string{right, "one more"} {
				p := r.connectTLS(elsewhere)
				answers = append(answers, p.login("alice", password))
				p.hangUp()
			}
			if last := answers[len(answers)-1]; !strings.HasPrefix(last, "l NO [UNAVAILABLE]") {
				t.Errorf("after ten guesses: %s", last)
			}
		}
	})
}

// A panic ends its session only, and what the session held is given back.
func TestPanic(t *testing.T) {
	in(t, func(r *rig) {
		pair := "secret" + r.code(r.enroll("alice"))
		route := r.Route
		r.Route = func(string) *Upstream { panic("a bug") }
		p := r.connectTLS(home)
		p.send("l LOGIN alice %s\r\n", pair)
		p.wantEnd()
		synctest.Wait()
		r.Route = route
		p = r.connectTLS(home)
		if got := p.login("alice", pair); !strings.HasPrefix(got, "l OK") {
			t.Errorf("the next login: %s", got)
		}
		p.hangUp()
		if got := r.events(); len(got) != 2 || got[0] != "failed not-judged" {
			t.Errorf("audit: %q", got)
		}
	})
}

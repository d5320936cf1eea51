// The login benchmark says what each second factor costs the proxy: CPU time for a login, as
// a ratio to the same login in mode observe of an account that has no record here.
//
//	go run ./bench/login -accounts 100000 -app-passwords 300000
//
// It fills a SQLite store, starts the program that is built from this tree in a process of its
// own, plays the upstream and the mail programs, and reads that process's CPU clock. The
// kinds of login take turns in random order, so that whatever else the machine does
// meets all of them; only ratios within one run mean something. At the end it holds the audit
// against what it did: every login must have been let in by the factor that was meant.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"imapwarden/auth"
)

// settings are what a run is made of.
type settings struct {
	accounts     int // with an authenticator, in the store
	appPasswords int // of them all
	events       int // in the audit beforehand
	rounds       int
	logins       int // of each kind in each round
	parallel     int // logins at a time
	folder       string
	quick        bool // don't wait for what is written later
}

// A kind is one way to sign in.
type kind struct {
	name   string
	factor auth.Factor // that the audit must name
}

var (
	observed    = kind{"observe, no account", auth.FactorNone}
	appPassword = kind{"app password with vault", auth.FactorAppPassword}
	grant       = kind{"password with grant", auth.FactorGrant}
	code        = kind{"password and code", auth.FactorCode}
	// The first login by code after a start seals the account's app passwords anew.
	firstCode = kind{"password and code, the first", auth.FactorCode}

	kinds = []kind{observed, appPassword, grant, code, firstCode}
)

// mostLogins of a kind keep two kinds below the 10,000 accounts for which the proxy remembers
// what it has sealed.
const mostLogins = 4500

func main() {
	var s settings
	flag.IntVar(&s.accounts, "accounts", 100_000, "enrolled accounts in the store")
	flag.IntVar(&s.appPasswords, "app-passwords", 300_000, "app passwords in the store")
	flag.IntVar(&s.events, "events", 100_000, "audit events in the store")
	flag.IntVar(&s.rounds, "rounds", 40, "rounds; in each all kinds of login take their turn")
	flag.IntVar(&s.logins, "logins", 50, "logins of each kind in a round")
	flag.IntVar(&s.parallel, "parallel", 1, "logins at a time")
	flag.StringVar(&s.folder, "folder", "", "where the store is put; left out: a temporary folder")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, s, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench/login:", err)
		os.Exit(1)
	}
}

// bench measures and reports.
func bench(ctx context.Context, s settings, out io.Writer) (err error) {
	each := s.rounds * s.logins
	switch people := each * (len(kinds) - 1); {
	case s.rounds < 2 || s.logins < 1 || s.parallel < 1:
		return fmt.Errorf("at least two rounds of one login, one at a time, are needed")
	case each > mostLogins:
		return fmt.Errorf("%d logins of each kind are too many: %d are the most", each, mostLogins)
	case people > s.accounts:
		return fmt.Errorf("%d accounts are too few: every login has an account of its own, %d in all", s.accounts, people)
	}
	if s.folder == "" {
		if s.folder, err = os.MkdirTemp("", "imapwarden-bench-"); err != nil {
			return err
		}
		defer os.RemoveAll(s.folder)
	}

	began := time.Now()
	people, err := fill(ctx, s)
	if err != nil {
		return fmt.Errorf("filling the store: %w", err)
	}
	fmt.Fprintf(out, "%d accounts, %d app passwords and %d events written in %s\n",
		s.accounts, s.appPasswords, s.events, time.Since(began).Round(time.Second))

	upstream, end, err := startUpstream()
	if err != nil {
		return err
	}
	defer end()
	w, err := startWarden(ctx, s.folder, upstream)
	if err != nil {
		return err
	}
	m := &measurement{settings: s, warden: w, people: people, done: make(map[login]int)}
	err = m.run(ctx)
	if stopped := w.Stop(); err == nil {
		err = stopped
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, w.LastWords())
	}
	if err := verify(ctx, s.folder, m.done); err != nil {
		return err
	}
	return m.report(out)
}

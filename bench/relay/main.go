// The relay benchmark says what a session costs: CPU time for a login, for octets and for a
// round trip, and the memory and CPU time of sessions that idle. imapwarden, built from this
// tree, HAProxy, nginx's mail module, Dovecot's login proxy and stunnel stand in front of the
// same upstream, with the same certificate, and take turns in random order.
//
//	./bench/run
//
// The proxies, the upstream and the load generator are processes of their own; what a proxy
// uses is read from outside, for all its processes. Only ratios within one run mean something.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settings are what a benchmark is made of.
type settings struct {
	runs        int
	sessions    int
	logins      int // of each kind in a run
	noops       int
	octets      int64         // that go each way in a run, over one connection and over eight
	settle      time.Duration // after the last session went idle
	idle        time.Duration // for which CPU time is read then
	quiet       time.Duration // after which memory is read once more; 0: it isn't
	peers       []peer
	upstreamTLS bool
	growth      bool
}

func main() {
	if part, ok := parts[os.Getenv(partVariable)]; ok {
		playPart(part)
		return
	}
	s, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/relay:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, s, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench/relay:", err)
		os.Exit(1)
	}
}

func parse(arguments []string) (settings, error) {
	s := settings{logins: 400, noops: 2000, octets: 512 << 20, settle: 5 * time.Second, idle: 30 * time.Second}
	flags := flag.NewFlagSet("bench/relay", flag.ExitOnError)
	only, quick := "", false
	flags.IntVar(&s.runs, "runs", 5, "runs, of which the median counts")
	flags.IntVar(&s.sessions, "sessions", 4000, "sessions that idle at a time")
	flags.DurationVar(&s.quiet, "quiet", 0, "read memory again after so much quiet time")
	flags.StringVar(&only, "only", "", "peers, with commas between: imapwarden,haproxy,nginx,dovecot,stunnel")
	flags.BoolVar(&quick, "quick", false, "a run with little of everything: a look, no measurement")
	flags.BoolVar(&s.upstreamTLS, "upstream-tls", false, "TLS to the upstream, for imapwarden alone")
	flags.BoolVar(&s.growth, "growth", false, "imapwarden alone, with 1,000, 4,000 and 9,000 sessions")
	flags.Parse(arguments)
	if quick {
		s.runs, s.sessions, s.logins, s.noops, s.octets = 1, min(s.sessions, 400), 40, 300, 64<<20
		s.idle = 3 * time.Second
	}
	if only == "" && (s.growth || s.upstreamTLS) {
		only = imapwarden.name
	}
	var err error
	s.peers, err = choose(only)
	switch {
	case err != nil:
	case s.runs < 1 || s.sessions < 1:
		err = fmt.Errorf("-runs and -sessions must be at least 1")
	case (s.upstreamTLS || s.growth) && (len(s.peers) != 1 || s.peers[0].name != imapwarden.name):
		err = fmt.Errorf("-upstream-tls and -growth are for imapwarden alone")
	}
	return s, err
}

// choose finds the peers by their names.
func choose(names string) ([]peer, error) {
	if names == "" {
		return peers, nil
	}
	var chosen []peer
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(peers, func(p peer) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no peer %q", name)
		}
		chosen = append(chosen, peers[i])
	}
	return chosen, nil
}

// bench measures and reports. All that it starts has ended when it returns.
func bench(ctx context.Context, s settings, out io.Writer) (err error) {
	if err := raiseLimit(); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "imapwarden-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if err := os.Chmod(folder, 0o711); err != nil { // Dovecot's processes have users of their own
		return err
	}
	t, err := build(ctx, s, filepath.Clean(folder))
	if err != nil {
		return err
	}
	defer func() {
		if stopped := t.stop(); err == nil {
			err = stopped
		}
	}()
	if s.growth {
		return t.grow(ctx, out)
	}
	return t.compare(ctx, out)
}

// raiseLimit lets us, and all that we start, open as many descriptors as the machine allows.
func raiseLimit() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test's program play the benchmark's other parts.
func TestMain(m *testing.M) {
	if part, ok := parts[os.Getenv(partVariable)]; ok {
		playPart(part)
		return
	}
	os.Exit(m.Run())
}

// TestBench is a run that is too small to measure anything, but does all that a run does.
func TestBench(t *testing.T) {
	s := settings{
		runs: 1, sessions: 5, logins: 8, noops: 5, octets: 8 << 20,
		settle: time.Millisecond, idle: time.Millisecond, quiet: time.Millisecond, peers: []peer{imapwarden},
	}
	if _, err := exec.LookPath(haproxy.name); err == nil {
		s.peers = append(s.peers, haproxy)
	}
	var out strings.Builder
	if err := bench(t.Context(), s, &out); err != nil {
		t.Fatal(err)
	}
	for _, name := range order {
		if !strings.Contains(out.String(), "\n| "+name+" |") {
			t.Errorf("%s isn't in the report:\n%s", name, out.String())
		}
	}
}

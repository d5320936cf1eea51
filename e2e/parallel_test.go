package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// A mail program that opens all of its connections at once brings the same secret on each of
// them. One spends the code, the others come in behind it, and nobody else does.
func TestFifteenLoginsAtOnce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		factor string
		grant  string
		secret func(*account) string
	}{
		{"code", "network", func(a *account) string { return a.withCode(t) }},
		{"recovery", "network", func(a *account) string { return a.withRecovery(t) }},
		{"code", "tls-client", func(a *account) string { return a.withCode(t) }},
	} {
		t.Run(test.factor+", "+test.grant, func(t *testing.T) {
			t.Parallel()
			w := startWarden(t, settings{grant: test.grant})
			a := w.enrolled(anyPassword())
			secret := test.secret(a)
			conns := make([]*conn, 15)
			for i := range conns {
				conns[i] = dialTLS(t, home, w.implicit)
			}
			sendTogether(t, conns, "z LOGIN "+a.name+" "+secret+"\r\n")
			for i, c := range conns {
				if r := c.await("z"); !r.is("OK") {
					t.Errorf("connection %d: %s", i, r.line)
				}
			}
			counts := map[string]int{}
			for _, e := range w.events(a) {
				if e.Kind == "login" {
					counts[fmt.Sprintf("%s %s %s", e.Outcome, e.Factor, e.Reason)]++
				}
			}
			if len(counts) != 2 || counts["accepted "+test.factor+" "] != 1 || counts["accepted grant "] != 14 {
				t.Errorf("the audit counts %v", counts)
			}
			for _, c := range conns {
				c.holdsMailOf(a)
			}
			w.rejects(a, work, secret, "replayed-code")
		})
	}
}

// sendTogether writes the line on all connections, as much at once as there are cores.
func sendTogether(t *testing.T, conns []*conn, line string) {
	t.Helper()
	var wg sync.WaitGroup
	start := make(chan struct{})
	for _, c := range conns {
		wg.Go(func() {
			<-start
			c.SetWriteDeadline(time.Now().Add(patience))
			if _, err := c.Write([]byte(line)); err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
}

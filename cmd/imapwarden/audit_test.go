package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imapwarden/audit"
	"imapwarden/store/memory"
)

func TestAuditFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := memory.New()
		add := func(account string, n int) {
			for range n {
				if err := held.Append(t.Context(), []audit.Event{{Kind: "login", Account: account}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		var out bytes.Buffer
		o := &options{json: true, stdout: &out}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		add("early", 3)
		go func() {
			ended <- o.printEvents(ctx, &records{events: held}, audit.Filter{Account: "early", Limit: 2}, true)
		}()
		synctest.Wait()
		if got := strings.Count(out.String(), "early"); got != 2 {
			t.Errorf("%d events at first, want the limit of 2", got)
		}
		add("early", 5)
		add("other", 1)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := strings.Count(out.String(), "\n"); got != 7 {
			t.Errorf("%d events in the end, want all 5 new ones besides the first 2, each once", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("interrupted, it ended with %v", err)
		}
	})
}

// A client says of itself what it likes, and must not move the reader's cursor.
func TestAuditLineIsHarmless(t *testing.T) {
	var out bytes.Buffer
	o := &options{stdout: &out}
	err := o.printEvent(audit.Event{
		Time: time.Date(2026, 11, 1, 12, 0, 0, 0, time.Local), Kind: "login", Outcome: audit.Refused,
		Account: "alice@example.org", Source: "203.0.113.7", Reason: "wrong-password",
		Program: "Mail\x1b[2J\nforged\u202eline",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "2026-11-01 12:00:00  login            refused   alice@example.org               203.0.113.7      wrong-password, Mail?[2J?forged?line\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"imapwarden/audit"
	"imapwarden/configs"
	"imapwarden/metrics"
	"imapwarden/policy"
	"imapwarden/store/memory"
)

// recorded are the alerts in the audit, each as its rule, account, reason and detail.
func recorded(t *testing.T, s *memory.Store) (alerts []string) {
	t.Helper()
	events, err := s.Events(t.Context(), audit.Filter{Kind: "alert", Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		alerts = append(alerts, strings.Join([]string{e.Rule, e.Account, e.Source, e.Reason, e.Detail}, "|"))
	}
	return alerts
}

// alerting runs f with alerts that go to a store, inside a bubble, and returns the log.
func alerting(t *testing.T, f func(a *alerts, s *memory.Store)) (logs *observer.ObservedLogs) {
	synctest.Test(t, func(t *testing.T) {
		core, logged := observer.New(zap.InfoLevel)
		logs = logged
		s := memory.New()
		a, err := openAlerts(t.Context(), configs.Default(), s, metrics.New(), zap.New(core))
		if err != nil {
			t.Fatal(err)
		}
		a.recorder = audit.NewRecorder(a.sink(s), zap.New(core))
		f(a, s)
		if err := a.recorder.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	return logs
}

func TestAlertsAreRecorded(t *testing.T) {
	source, network := netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParsePrefix("192.0.2.0/24")
	logs := alerting(t, func(a *alerts, s *memory.Store) {
		a.raise(policy.Alert{Signal: policy.DecoyAccount, Account: "admin@example.org", Source: source, Network: network, Detail: "banned"})
		a.raise(policy.Alert{Signal: policy.PasswordSprayed, Account: "alice", Right: true, Detail: "right"})
		a.raise(policy.Alert{Signal: policy.MachineAlarm, Detail: "many"})
		synctest.Wait()
		want := []string{
			"decoy-account|admin@example.org|192.0.2.1||banned (192.0.2.0/24)",
			"password-sprayed|alice||right-password|right",
			"machine-alarm||||many",
		}
		if got := recorded(t, s); !slices.Equal(got, want) {
			t.Errorf("recorded %q, want %q", got, want)
		}
	})
	if n := logs.FilterLevelExact(zap.WarnLevel).Len(); n != 3 {
		t.Errorf("%d warnings in the log, want 3", n)
	}
}

// What strangers can repeat at will is recorded once in ten minutes.
func TestAlertsThatRepeat(t *testing.T) {
	alerting(t, func(a *alerts, s *memory.Store) {
		raise := func(signal, account string) {
			a.raise(policy.Alert{Signal: signal, Account: account, Detail: "x"})
		}
		for range 5 {
			raise(policy.AccountNetworks, "alice")
		}
		raise(policy.AccountNetworks, "bob")
		raise(policy.DecoyAccount, "alice")
		time.Sleep(10*time.Minute - 1)
		raise(policy.AccountNetworks, "alice")
		time.Sleep(time.Nanosecond)
		raise(policy.AccountNetworks, "alice")
		time.Sleep(10 * time.Minute)
		raise(policy.AccountNetworks, "alice")
		synctest.Wait()
		want := []string{
			"account-networks|alice|||x", "account-networks|bob|||x", "decoy-account|alice|||x",
			"account-networks|alice|||x; 5 more like it before", "account-networks|alice|||x",
		}
		if got := recorded(t, s); !slices.Equal(got, want) {
			t.Errorf("recorded %q, want %q", got, want)
		}
	})
}

// A flood of accounts and networks is bounded, hides no password that was right, and ends.
func TestAlertsInAFlood(t *testing.T) {
	alerting(t, func(a *alerts, s *memory.Store) {
		for i := range 5000 {
			a.raise(policy.Alert{Signal: policy.DecoyAccount, Account: fmt.Sprint("decoy", i)})
		}
		a.raise(policy.Alert{Signal: policy.MachineAlarm})
		a.raise(policy.Alert{Signal: policy.PasswordSprayed})
		a.raise(policy.Alert{Signal: policy.PasswordSprayed, Account: "alice", Right: true})
		synctest.Wait()
		got := recorded(t, s)
		if len(got) != 1004 || !slices.Contains(got, "password-sprayed|alice||right-password|") || !slices.Contains(got, "machine-alarm||||") {
			t.Errorf("%d alerts recorded, want 1000, one for the others, and three", len(got))
		}
		time.Sleep(10 * time.Minute)
		for _, account := range []string{"decoy0", "decoy5001", "decoy5002"} {
			a.raise(policy.Alert{Signal: policy.DecoyAccount, Account: account})
		}
		synctest.Wait()
		if later := recorded(t, s); len(later) != len(got)+3 {
			t.Errorf("%d alerts recorded ten minutes later, want three", len(later)-len(got))
		}
	})
}

// A receiver hands on what it is sent.
func receiver(t *testing.T, code int) (url string, bodies chan map[string]any) {
	t.Helper()
	bodies = make(chan map[string]any, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		bodies <- body
		w.WriteHeader(code)
		io.WriteString(w, "said \x1b[31m so")
	}))
	t.Cleanup(server.Close)
	return server.URL + "/T0KEN", bodies
}

// posts hands on the bodies of requests, and takes them.
type posts chan string

func (p posts) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	p <- string(body)
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, err
}

func TestAlertsReachTheWebhook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := configs.Default()
		c.Hostname = "mail.example.org"
		c.Alerts = configs.Alerts{Webhook: "https://hooks.example.org/", KeyFile: filepath.Join(t.TempDir(), "webhook.key")}
		s := memory.New()
		a, err := openAlerts(t.Context(), c, s, metrics.New(), zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		posted := make(posts)
		a.webhook.Transport = posted
		a.recorder = audit.NewRecorder(a.sink(s), zap.NewNop())
		defer a.recorder.Close(t.Context())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.run(ctx) }()
		synctest.Wait() // it has looked and found nothing
		began := time.Now()
		a.raise(policy.Alert{Signal: policy.PasswordSprayed, Account: "alice", Right: true, Detail: "x"})
		body := <-posted
		if waited := time.Since(began); waited > 0 {
			t.Errorf("it was posted after %v", waited)
		}
		for _, part := range []string{`"kind":"alert"`, `"account":"alice","reason":"right-password","rule":"password-sprayed","detail":"x"`, `"imapwarden":"mail.example.org"}`} {
			if !strings.Contains(body, part) {
				t.Errorf("posted %s, without %s", body, part)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestOpenAlertsRefuses(t *testing.T) {
	c := configs.Default()
	c.Alerts = configs.Alerts{Webhook: "http://example.org/", KeyFile: filepath.Join(t.TempDir(), "webhook.key")}
	if _, err := openAlerts(t.Context(), c, memory.New(), metrics.New(), zap.NewNop()); err == nil || !strings.Contains(err.Error(), "https://") {
		t.Errorf("with plain HTTP: %v", err)
	}
	c.Alerts.KeyFile = t.TempDir()
	if _, err := openAlerts(t.Context(), c, memory.New(), metrics.New(), zap.NewNop()); err == nil {
		t.Error("with a folder for a key")
	}
}

// testAlerts runs "alerts test" with these lines in the configuration.
func testAlerts(t *testing.T, lines string, withKey, asJSON bool) (out string, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "imapwarden.toml")
	key := file + ".key"
	text := fmt.Sprintf("hostname = \"mail.example.org\"\n[alerts]\nkey_file = %q\n%s\n", key, lines)
	err = os.WriteFile(file, []byte(text), 0o600)
	if withKey {
		err = errors.Join(err, os.WriteFile(key, []byte(strings.Repeat("5a", 32)), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	o := &options{config: file, json: asJSON, stdout: &b, stderr: &b}
	cmd := alertsCommand(o)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs([]string{"test"})
	err = cmd.ExecuteContext(t.Context())
	if shown := fmt.Sprint(b.String(), err); strings.Contains(shown, "T0KEN") || strings.Contains(shown, "5a5a") {
		t.Errorf("a secret is shown: %s", shown)
	}
	if _, absent := os.Stat(key); (absent == nil) != withKey {
		t.Error("it made a key")
	}
	return b.String(), err
}

func TestAlertsTest(t *testing.T) {
	good, bodies := receiver(t, http.StatusAccepted)
	bad, _ := receiver(t, http.StatusForbidden)
	host := func(url string) string { return strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/T0KEN") }
	line := func(url string) string { return fmt.Sprintf("webhook = %q", url) }

	out, err := testAlerts(t, line(good), true, false)
	if want := host(good) + " answers 202: it has taken the test alert.\nIt says: said ?[31m so\n"; err != nil || out != want {
		t.Errorf("%v, %q; want %q", err, out, want)
	}
	body := <-bodies
	if body["rule"] != "test" || body["kind"] != "alert" || body["id"] != nil || body["imapwarden"] != "mail.example.org" {
		t.Errorf("the receiver has %v", body)
	}
	out, err = testAlerts(t, line(bad), true, false)
	if !errors.Is(err, errShown) || !strings.HasPrefix(out, host(bad)+" answers 403: it hasn't taken the test alert.\n") {
		t.Errorf("refused: %v, %q", err, out)
	}
	out, err = testAlerts(t, line(bad), true, true)
	if want := fmt.Sprintf(`{"receiver":%q,"status":403,"taken":false,"answer":"said \u001b[31m so"}`+"\n", host(bad)); !errors.Is(err, errShown) || out != want {
		t.Errorf("refused, as JSON: %v, %q, want %q", err, out, want)
	}
	if _, err = testAlerts(t, "", true, false); !errors.As(err, new(misuse)) || !strings.Contains(err.Error(), "alerts.webhook") {
		t.Errorf("without a webhook: %v", err)
	}
	if _, err = testAlerts(t, line(good), false, false); err == nil || !strings.Contains(err.Error(), "the server makes it") {
		t.Errorf("without a key: %v", err)
	}
}

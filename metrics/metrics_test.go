package metrics

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// page fetches path from m's handler as a client would.
func page(t *testing.T, m *Metrics, method, path string, ready func() error) (int, string) {
	t.Helper()
	rec := httptest.NewRecorder()
	m.Handler(ready).ServeHTTP(rec, httptest.NewRequest(method, path, nil))
	return rec.Code, rec.Body.String()
}

func isReady() error { return nil }

// samples returns the page's lines as series and value.
func samples(t *testing.T, m *Metrics) map[string]string {
	t.Helper()
	status, body := page(t, m, "GET", "/metrics", isReady)
	if status != http.StatusOK {
		t.Fatalf("/metrics answered %d: %s", status, body)
	}
	found := map[string]string{}
	for line := range strings.Lines(body) {
		if series, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && series != "#" {
			found[series] = value
		}
	}
	return found
}

func TestSeries(t *testing.T) {
	m := New()
	m.Accepted.Inc()
	m.BeforeLogin.Inc()
	m.BeforeLogin.Dec()
	m.Relaying.Inc()
	m.HandshakeFailed.Inc()
	m.FromClient.Add(5)
	m.ToClient.Add(7)
	m.Login("refused", "wrong-code", "none", 2*time.Second)
	m.Login("refused", "wrong-code", "none", 3*time.Second)
	m.Login("accepted", "", "code", 30*time.Millisecond)
	m.Limited("address_per_minute")
	m.UpstreamFailed(TLS)
	m.WatchAudit(func() float64 { return 3 }, func() float64 { return 4 })
	m.WatchAuditFile(func() time.Time { return time.UnixMicro(1_500_000) })
	m.WatchWebhook(func() float64 { return 5 }, func() float64 { return 6 })
	m.KnowAlerts("unproved", "decoy-account")
	m.Alerted("unproved")

	got := samples(t, m)
	for series, want := range map[string]string{
		`imapwarden_connections_total`:                                                 "1",
		`imapwarden_sessions{state="before_login"}`:                                    "0",
		`imapwarden_sessions{state="relaying"}`:                                        "1",
		`imapwarden_handshake_failures_total`:                                          "1",
		`imapwarden_relayed_bytes_total{direction="from_client"}`:                      "5",
		`imapwarden_relayed_bytes_total{direction="to_client"}`:                        "7",
		`imapwarden_logins_total{factor="none",outcome="refused",reason="wrong-code"}`: "2",
		`imapwarden_logins_total{factor="code",outcome="accepted",reason=""}`:          "1",
		`imapwarden_login_duration_seconds_bucket{outcome="refused",le="1"}`:           "0",
		`imapwarden_login_duration_seconds_bucket{outcome="refused",le="2.5"}`:         "1",
		`imapwarden_login_duration_seconds_sum{outcome="refused"}`:                     "5",
		`imapwarden_login_duration_seconds_count{outcome="accepted"}`:                  "1",
		`imapwarden_limited_total{signal="address_per_minute"}`:                        "1",
		`imapwarden_audit_events_lost_total`:                                           "3",
		`imapwarden_audit_events_waiting`:                                              "4",
		`imapwarden_audit_file_complete_timestamp_seconds`:                             "1.5",
		`imapwarden_webhook_waiting`:                                                   "5",
		`imapwarden_webhook_failures_total`:                                            "6",
		`imapwarden_alerts_total{signal="unproved"}`:                                   "1",
		`imapwarden_alerts_total{signal="decoy-account"}`:                              "0",
		`imapwarden_upstream_failures_total{step="dial"}`:                              "0",
		`imapwarden_upstream_failures_total{step="tls"}`:                               "1",
		`imapwarden_upstream_failures_total{step="greeting"}`:                          "0",
		`imapwarden_upstream_failures_total{step="login"}`:                             "0",
	} {
		if got[series] != want {
			t.Errorf("%s is %q, want %q", series, got[series], want)
		}
	}
	for _, series := range []string{"go_goroutines", "process_open_fds"} {
		if got[series] == "" {
			t.Errorf("%s is missing", series)
		}
	}
}

// Two in one process, as in tests, don't share a registry.
func TestNewIsSeparate(t *testing.T) {
	one, other := New(), New()
	one.Accepted.Inc()
	if got := samples(t, other)["imapwarden_connections_total"]; got != "0" {
		t.Errorf("the other process's counter is %q, want 0", got)
	}
}

// A file that was never complete is not one of 1754, where Go's zero time would be.
func TestAuditFileNotYet(t *testing.T) {
	m := New()
	if _, ok := samples(t, m)["imapwarden_audit_file_complete_timestamp_seconds"]; ok {
		t.Error("there is no file, and a time")
	}
	m.WatchAuditFile(func() time.Time { return time.Time{} })
	if got := samples(t, m)["imapwarden_audit_file_complete_timestamp_seconds"]; got != "0" {
		t.Errorf("got %q, want 0", got)
	}
}

func TestHealth(t *testing.T) {
	broken := func() error { return errors.New("store: disk full") }
	for _, test := range []struct {
		method, path string
		ready        func() error
		status       int
		body         string
	}{
		{"GET", "/healthz", isReady, 200, "ok\n"},
		{"HEAD", "/healthz", isReady, 200, "ok\n"}, // net/http's server drops the body
		{"GET", "/healthz", broken, 200, "ok\n"},
		{"GET", "/readyz", isReady, 200, "ready\n"},
		{"GET", "/readyz", broken, 503, "not ready: store: disk full\n"},
		{"POST", "/readyz", isReady, 405, "Method Not Allowed\n"},
		{"GET", "/debug/pprof/", isReady, 404, "404 page not found\n"},
	} {
		status, body := page(t, New(), test.method, test.path, test.ready)
		if status != test.status || body != test.body {
			t.Errorf("%s %s: %d %q, want %d %q", test.method, test.path, status, body, test.status, test.body)
		}
	}
}

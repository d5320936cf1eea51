// Package metrics is every number that we count, each named once.
//
// It knows Prometheus and HTTP, and nothing of ours: outcomes, reasons,
// factors and signals are strings of the caller. They become labels, and every
// value of a label is a time series kept for ever, so callers pass constants
// from closed sets only: never a user name, an address or an error's text.
//
// A Metrics is safe for concurrent use.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// A Step is a part of reaching the upstream.
type Step string

// The steps, in their order.
const (
	Dial     Step = "dial"
	TLS      Step = "tls"
	Greeting Step = "greeting"
	Login    Step = "login"
)

// Metrics holds the counters of one process. The zero value is no use: see New.
type Metrics struct {
	// Accepted counts TCP connections, before anything was decided about them.
	Accepted prometheus.Counter
	// BeforeLogin and Relaying are the sessions that exist now; a session is in one of the two.
	BeforeLogin, Relaying prometheus.Gauge
	// HandshakeFailed counts TLS handshakes with clients that came to nothing.
	HandshakeFailed prometheus.Counter
	// FromClient and ToClient count octets relayed after login.
	FromClient, ToClient prometheus.Counter

	registry *prometheus.Registry
	logins   *prometheus.CounterVec
	duration *prometheus.HistogramVec
	limited  *prometheus.CounterVec
	upstream *prometheus.CounterVec
	alerts   *prometheus.CounterVec
}

// New makes all counters, at zero, in a registry of their own, next to those
// about the Go runtime and the process.
func New() *Metrics {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	factory := promauto.With(registry)
	sessions := factory.NewGaugeVec(prometheus.GaugeOpts{
		Name: "imapwarden_sessions",
		Help: "Sessions now, by state.",
	}, []string{"state"})
	relayed := factory.NewCounterVec(prometheus.CounterOpts{
		Name: "imapwarden_relayed_bytes_total",
		Help: "Octets relayed after login, by direction.",
	}, []string{"direction"})

	m := &Metrics{
		Accepted: factory.NewCounter(prometheus.CounterOpts{
			Name: "imapwarden_connections_total",
			Help: "Connections accepted.",
		}),
		BeforeLogin: sessions.WithLabelValues("before_login"),
		Relaying:    sessions.WithLabelValues("relaying"),
		HandshakeFailed: factory.NewCounter(prometheus.CounterOpts{
			Name: "imapwarden_handshake_failures_total",
			Help: "TLS handshakes with clients that failed.",
		}),
		FromClient: relayed.WithLabelValues("from_client"),
		ToClient:   relayed.WithLabelValues("to_client"),

		registry: registry,
		logins: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "imapwarden_logins_total",
			Help: "Login attempts, by outcome, reason and second factor.",
		}, []string{"outcome", "reason", "factor"}),
		duration: factory.NewHistogramVec(prometheus.HistogramOpts{
			Name: "imapwarden_login_duration_seconds",
			Help: "From the last octet of the credentials to our answer, by outcome.",
			// Good logins take an upstream's 10 ms; refusals wait for mfa.refusal_delay;
			// mail programs give up after 20 s and more.
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15, 20},
		}, []string{"outcome"}),
		limited: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "imapwarden_limited_total",
			Help: "Connections and attempts turned away by a limit, by signal.",
		}, []string{"signal"}),
		upstream: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "imapwarden_upstream_failures_total",
			Help: "Upstreams that could not be used, by step.",
		}, []string{"step"}),
		alerts: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "imapwarden_alerts_total",
			Help: "Alerts, by signal; those that the audit counts together with another are in it.",
		}, []string{"signal"}),
	}
	// Known series begin at zero, or else the first failure of all is no increase.
	for _, step := range []Step{Dial, TLS, Greeting, Login} {
		m.upstream.WithLabelValues(string(step))
	}
	return m
}

// WatchAudit shows how many events could not be stored, and how many wait to be. It is called
// once, and the functions at each look at the page.
func (m *Metrics) WatchAudit(lost, waiting func() float64) {
	m.registry.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "imapwarden_audit_events_lost_total",
			Help: "Audit events that the store didn't take, and that are in the log only.",
		}, lost),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "imapwarden_audit_events_waiting",
			Help: "Audit events that wait to be stored.",
		}, waiting),
	)
}

// WatchAuditFile shows when all stored events were last seen to be in the audit's file. It is
// called once, where there is a file; the zero time is 0.
func (m *Metrics) WatchAuditFile(passed func() time.Time) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "imapwarden_audit_file_complete_timestamp_seconds",
		Help: "When all stored audit events were last in the file, in seconds since 1970; 0: not yet.",
	}, func() float64 {
		if at := passed(); !at.IsZero() {
			return float64(at.UnixMicro()) / 1e6
		}
		return 0
	}))
}

// WatchWebhook shows how many alerts wait to be posted, and how many requests the receiver
// didn't take. It is called once, where there is a webhook.
func (m *Metrics) WatchWebhook(waiting, failures func() float64) {
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "imapwarden_webhook_waiting",
			Help: "Alerts that the webhook's receiver doesn't have yet; 1000 stands for these and more.",
		}, waiting),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "imapwarden_webhook_failures_total",
			Help: "Requests with an alert that the webhook's receiver didn't take.",
		}, failures),
	)
}

// KnowAlerts lets the series of these signals begin at zero.
func (m *Metrics) KnowAlerts(signals ...string) {
	for _, signal := range signals {
		m.alerts.WithLabelValues(signal)
	}
}

// Alerted counts one alert. The signal is a constant of package policy.
func (m *Metrics) Alerted(signal string) {
	m.alerts.WithLabelValues(signal).Inc()
}

// Login counts one attempt that was answered after the given time. The three
// strings are those of the attempt's audit event.
func (m *Metrics) Login(outcome, reason, factor string, took time.Duration) {
	m.logins.WithLabelValues(outcome, reason, factor).Inc()
	m.duration.WithLabelValues(outcome).Observe(took.Seconds())
}

// Limited counts one connection or attempt that a limit turned away. The signal
// is the limit's name, such as "address_per_minute".
func (m *Metrics) Limited(signal string) {
	m.limited.WithLabelValues(signal).Inc()
}

// UpstreamFailed counts one upstream connection that was given up at step. A
// password that the upstream refused is no failure of the upstream.
func (m *Metrics) UpstreamFailed(step Step) {
	m.upstream.WithLabelValues(string(step)).Inc()
}

package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// WatchCertificates shows when the certificates that clients are shown expire, by a name of each. It is
// called once, and the function at each look at the page; its names are those of the configuration
// and of the certificates in its files.
func (m *Metrics) WatchCertificates(expiries func() map[string]time.Time) {
	m.registry.MustRegister(certificates(expiries))
}

// certificates is a prometheus.Collector: a certificate that is replaced may have other names.
type certificates func() map[string]time.Time

var expiry = prometheus.NewDesc("imapwarden_certificate_expiry_timestamp_seconds",
	"When the certificate that clients of the name are shown expires, in seconds since 1970.", []string{"name"}, nil)

// Describe tells the one series.
func (c certificates) Describe(out chan<- *prometheus.Desc) { out <- expiry }

// Collect looks at the certificates.
func (c certificates) Collect(out chan<- prometheus.Metric) {
	for name, at := range c() {
		out <- prometheus.MustNewConstMetric(expiry, prometheus.GaugeValue, float64(at.Unix()), name)
	}
}

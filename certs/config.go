package certs

import "crypto/tls"

// ServerConfig is how we speak TLS with clients: RFC 9325, RFC 8996. A minVersion
// below TLS 1.2 is raised to it.
//
// Session tickets stay on, with keys that crypto/tls makes and changes daily. They belong
// to the returned value: use the same one for all listeners and connections.
// The curves are crypto/tls's own, X25519MLKEM768 among them; renegotiation and
// compression don't exist in its servers.
func ServerConfig(c Chooser, minVersion uint16) *tls.Config {
	config := &tls.Config{
		GetCertificate: c.GetCertificate,
		MinVersion:     max(minVersion, tls.VersionTLS12),
		MaxVersion:     tls.VersionTLS13,
		// A client that offers other protocols only is refused (RFC 7301, section 3.2):
		// it was sent here by somebody who wants our answers taken for another
		// server's (ALPACA). One that offers none is fine.
		NextProtos: []string{"imap"},
		// For TLS 1.2: forward secrecy and authenticated encryption only. Those of TLS 1.3
		// all have both.
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
	if c.ACME != nil {
		config.GetConfigForClient = c.ACME.ConfigFor
	}
	return config
}

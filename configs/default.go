package configs

import "time"

// Default returns the configuration of a file that says nothing. It can't be
// served as it is: hostname, listener, tls.certificates and upstream have no default.
func Default() *Config {
	return &Config{
		AccountNames: "ascii",

		TLS: TLS{MinVersion: "1.2", ACME: ACME{
			Challenge:   "tls-alpn-01",
			DNS:         DNS{Algorithm: "hmac-sha256"},
			Propagation: Duration(2 * time.Minute),
		}},
		MFA: MFA{
			Mode:         "required",
			RefusalDelay: Duration(2 * time.Second),
			Grant: Grant{
				From:       "network",
				IPv4Prefix: 24,
				IPv6Prefix: 64,
				Absolute:   Duration(12 * time.Hour),
				Idle:       Duration(time.Hour),
				TLSClient:  TLSClient{Absolute: Duration(30 * day), Idle: Duration(7 * day)},
			},
		},
		Limits: Limits{
			Mode:                   "enforce",
			AddressPerMinute:       10,
			AddressPerDay:          50,
			NATShare:               25,
			NetworkAccounts:        10,
			NetworkUnknown:         5,
			Ban:                    Duration(10 * time.Minute),
			LongestBan:             Duration(3 * time.Hour),
			AccountFailures:        10,
			AccountPenalty:         Duration(time.Minute),
			AccountCodes:           100,
			FamiliarPerDay:         50,
			AccountNetworks:        12,
			AccountNetworkFailures: 7,
			PasswordPerHour:        5,
			PasswordPerDay:         8,
			UnprovedPerHour:        5,
			AlarmShare:             30,
			Tarpit:                 []Duration{Duration(2 * time.Second), Duration(4 * time.Second), Duration(8 * time.Second), Duration(15 * time.Second)},
			TarpitPlaces:           500,
			Refusals:               3,
			ConnectionsBeforeLogin: 40,
			TotalBeforeLogin:       4000,
			PerAccountAndAddress:   20,
			PerAccount:             50,
		},
		Passwords: Passwords{Action: "fresh-code"},
		Geo:       Geo{Absent: "skip"},
		Alerts:    Alerts{KeyFile: "/var/lib/imapwarden/webhook.key"},
		Timeouts: Timeouts{
			Handshake:       Duration(10 * time.Second),
			Command:         Duration(30 * time.Second),
			Unauthenticated: Duration(3 * time.Minute),
			Login:           Duration(15 * time.Second),
			Write:           Duration(30 * time.Second),
			Idle:            Duration(35 * time.Minute),
			Drain:           Duration(30 * time.Second),
		},
		Store: Store{
			URL:     "sqlite:/var/lib/imapwarden/imapwarden.db",
			KeyFile: "/var/lib/imapwarden/master.key",
		},
		Admin:   Admin{Socket: "/run/imapwarden/admin.sock"},
		Metrics: Metrics{Address: "127.0.0.1:9993"},
		Log:     Log{Level: "info", Format: "json"},
		Audit:   Audit{Keep: Duration(90 * day), Most: 1_000_000},
	}
}

// DefaultListener returns a [[listener]] that says nothing.
func DefaultListener() Listener { return Listener{TLS: "implicit"} }

// DefaultRule returns a [[rule]] that says nothing.
func DefaultRule() Rule { return Rule{Action: "allow"} }

// DefaultUpstream returns an [[upstream]] that says nothing.
func DefaultUpstream() Upstream {
	return Upstream{
		Name:    "default",
		TLS:     "starttls",
		Login:   "replay",
		Master:  Master{Style: "authzid", Separator: "*"},
		Forward: "id",
	}
}

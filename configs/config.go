// Package configs is the configuration: its types, loading, defaults, and the
// check that serve and `imapwarden check` share. It is plain data and imports
// nothing of ours; cmd/imapwarden/serve.go turns it into each package's settings.
//
// The annotated example, imapwarden.toml, is embedded, and a test holds it equal
// to Default. A loaded Config is not changed any more and may be read by all.
package configs

import "net/netip"

// Config is a whole configuration file. The names of the keys are an interface.
type Config struct {
	Hostname      string     `toml:"hostname"`       // how we call ourselves: greeting, otpauth issuer
	DefaultDomain string     `toml:"default_domain"` // completes bare account names; "" leaves them
	AccountNames  string     `toml:"account_names"`  // "ascii" or "unicode": the letters that they may have
	Listeners     []Listener `toml:"listener"`
	TLS           TLS        `toml:"tls"`
	Upstreams     []Upstream `toml:"upstream"`
	Routes        []Route    `toml:"route"`
	MFA           MFA        `toml:"mfa"`
	Rules         []Rule     `toml:"rule"`
	Limits        Limits     `toml:"limits"`
	Passwords     Passwords  `toml:"passwords"`
	Geo           Geo        `toml:"geo"`
	Alerts        Alerts     `toml:"alerts"`
	Timeouts      Timeouts   `toml:"timeouts"`
	Store         Store      `toml:"store"`
	Shared        Shared     `toml:"shared"`
	Portal        Portal     `toml:"portal"`
	Admin         Admin      `toml:"admin"`
	Metrics       Metrics    `toml:"metrics"`
	Log           Log        `toml:"log"`
	Audit         Audit      `toml:"audit"`
}

// A Listener is one address that clients connect to.
type Listener struct {
	Address        string         `toml:"address"` // host:port
	TLS            string         `toml:"tls"`     // "implicit" or "starttls"
	TrustedProxies []netip.Prefix `toml:"trusted_proxies"`
}

// TLS is what clients meet.
type TLS struct {
	Certificates []Certificate `toml:"certificates"`
	MinVersion   string        `toml:"min_version"` // "1.2" or "1.3"
	ClientCA     string        `toml:"client_ca"`
	ACME         ACME          `toml:"acme"`
}

// A Certificate is a chain and its private key, both PEM files.
type Certificate struct {
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
}

// ACME asks a certificate authority for certificates (RFC 8555).
type ACME struct {
	Domains     []string `toml:"domains"`     // a certificate for each
	Agree       bool     `toml:"agree"`       // to the authority's terms
	Email       string   `toml:"email"`       // where it can write to; "": nowhere
	Directory   string   `toml:"directory"`   // https://...; "" is Let's Encrypt's
	CA          string   `toml:"ca"`          // PEM file that the directory's own certificate comes from; "" is the system's
	Challenge   string   `toml:"challenge"`   // "tls-alpn-01", "http-01" or "dns-01"
	Address     string   `toml:"address"`     // host:port for the first two; "": our listeners, or for http-01 ":80"
	EAB         EAB      `toml:"eab"`         // binds our account to one that the authority's customer has
	DNS         DNS      `toml:"dns"`         // for dns-01: the server that takes the records
	Hook        string   `toml:"hook"`        // for dns-01, in its place: a program that writes them
	Propagation Duration `toml:"propagation"` // until a record is seen, at most; 0: nobody looks
}

// EAB is an external account binding (RFC 8555, section 7.3.4).
type EAB struct {
	KeyID   string `toml:"key_id"`
	KeyFile string `toml:"key_file"` // its first line is the key, in base64url
}

// DNS is a server that takes dynamic updates (RFC 2136), signed (RFC 8945).
type DNS struct {
	Server    string `toml:"server"` // host:port
	Zone      string `toml:"zone"`   // "": the server is asked
	KeyName   string `toml:"key_name"`
	Algorithm string `toml:"algorithm"` // "hmac-sha256", "hmac-sha384" or "hmac-sha512"
	KeyFile   string `toml:"key_file"`  // its first line is the key, in base64
}

// An Upstream is an IMAP server behind us.
type Upstream struct {
	Name           string `toml:"name"`
	Address        string `toml:"address"`         // host:port
	TLS            string `toml:"tls"`             // "starttls", "implicit" or "none"
	AllowPlaintext bool   `toml:"allow_plaintext"` // lets tls = "none" leave loopback and private networks
	CA             string `toml:"ca"`              // PEM file of a private CA; "" is the system's
	ServerName     string `toml:"server_name"`     // name to verify; "" is the address's host
	Login          string `toml:"login"`           // "replay" or "master"
	Master         Master `toml:"master"`
	Forward        string `toml:"forward"` // "id", "proxy-v2" or "off"
}

// A Route sends a domain's accounts, or one account, to an upstream. The first
// that fits counts; where none does, the first upstream.
type Route struct {
	Domain   string `toml:"domain"`
	Account  string `toml:"account"`
	Upstream string `toml:"upstream"`
}

// MFA is the second factor.
type MFA struct {
	Mode          string   `toml:"mode"`           // "required", "optional" or "observe"
	CodeSeparator string   `toml:"code_separator"` // "": the last six digits; else split at the last one
	RefusalDelay  Duration `toml:"refusal_delay"`  // a refusal comes no sooner
	Grant         Grant    `toml:"grant"`
}

// Grant is how long and from where the password alone is enough after a code.
type Grant struct {
	From       string    `toml:"from"` // "network", "tls-client", "both" or "off"
	IPv4Prefix int       `toml:"ipv4_prefix"`
	IPv6Prefix int       `toml:"ipv6_prefix"`
	Absolute   Duration  `toml:"absolute"`
	Idle       Duration  `toml:"idle"` // from the end of the last session under it
	TLSClient  TLSClient `toml:"tls_client"`
}

// TLSClient has the limits of grants that are bound to a TLS client.
type TLSClient struct {
	Absolute Duration `toml:"absolute"`
	Idle     Duration `toml:"idle"`
}

// Limits bound what strangers can try. Counts are of failures: good logins cost nothing.
type Limits struct {
	Mode    string   `toml:"mode"`    // "enforce" or "observe"
	Observe []string `toml:"observe"` // signals that only record what they would do, whatever mode says

	AddressPerMinute int `toml:"address_per_minute"` // failed attempts of one address (IPv6: its /64); three times as many of its /26 (/48), nine times of its /21 (/32)
	AddressPerDay    int `toml:"address_per_day"`    // the same over a day
	NATShare         int `toml:"nat_share"`          // percent: limits of a source grow by that share of the accounts that signed in from it lately

	NetworkAccounts int      `toml:"network_accounts"` // accounts failing from one /24 (/48) within 30 minutes; more ban it
	NetworkUnknown  int      `toml:"network_unknown"`  // accounts failing from there within an hour that nobody knows; so many ban it
	Ban             Duration `toml:"ban"`              // the first ban of a network; each one soon after is twice as long...
	LongestBan      Duration `toml:"longest_ban"`      // ...up to this

	AccountFailures int      `toml:"account_failures"` // distinct failed attempts on one account from unfamiliar networks...
	AccountPenalty  Duration `toml:"account_penalty"`  // ...then these wait so long, but for who brings a right code
	AccountCodes    int      `toml:"account_codes"`    // wrong codes for one account from unfamiliar networks in a day; then nobody from these
	FamiliarPerDay  int      `toml:"familiar_per_day"` // failed attempts on one account from one of its own networks

	AccountNetworks        int `toml:"account_networks"`         // networks that try one account within a day...
	AccountNetworkFailures int `toml:"account_network_failures"` // ...or failures from more than one of them: then the password alone isn't enough from unfamiliar ones for an hour

	PasswordPerHour int `toml:"password_per_hour"` // accounts for which one password was wrong within an hour...
	PasswordPerDay  int `toml:"password_per_day"`  // ...or a day: then every attempt with it needs a fresh code

	UnprovedPerHour  int `toml:"unproved_per_hour"`  // attempts from unfamiliar networks that lack a second factor, and that the upstream is asked about all the same
	StrangersPerHour int `toml:"strangers_per_hour"` // failures from unfamiliar networks where the password alone lets in, of all together; 0: by the number of accounts
	AlarmShare       int `toml:"alarm_share"`        // percent points of failures above the hour's norm: the alarm

	Tarpit       []Duration `toml:"tarpit"`        // how long refusals of penalised sources take, one after the other
	TarpitPlaces int        `toml:"tarpit_places"` // connections that are kept waiting so at once
	Decoys       []string   `toml:"decoys"`        // accounts that nobody has, as patterns: whoever tries one is banned

	Trusted []netip.Prefix `toml:"trusted"` // networks without limits and bans
	Webmail []netip.Prefix `toml:"webmail"` // peers whose word for the client's address (ID x-originating-ip) is believed

	Refusals               int `toml:"refusals"`                    // so many end a connection
	ConnectionsBeforeLogin int `toml:"connections_before_login"`    // of one address
	TotalBeforeLogin       int `toml:"total_before_login"`          // of all addresses together
	PerAccountAndAddress   int `toml:"connections_account_address"` // after login
	PerAccount             int `toml:"connections_account"`         // after login
}

// Passwords names a list of common or breached passwords.
type Passwords struct {
	File   string `toml:"file"`   // one a line, or what 'imapwarden passwords build' wrote; "" turns it off
	Action string `toml:"action"` // of attempts with one of them from unfamiliar networks: "fresh-code", "refuse" or "report"
}

// Geo names the files in MaxMind's format that say where addresses are.
type Geo struct {
	Countries string `toml:"countries"` // country of an address
	Owners    string `toml:"owners"`    // autonomous system of an address
	Absent    string `toml:"absent"`    // rules that need a file that can't be read: "skip" or "refuse"
}

// Alerts says who is told at once.
type Alerts struct {
	Webhook string `toml:"webhook"`  // https://...; "" turns it off
	KeyFile string `toml:"key_file"` // what the bodies are signed with; made on first start, mode 0600
}

// Timeouts bound each state of a session.
type Timeouts struct {
	Handshake       Duration `toml:"handshake"`       // TLS
	Command         Duration `toml:"command"`         // from a command's first octet to its last
	Unauthenticated Duration `toml:"unauthenticated"` // from accept to a good login
	Login           Duration `toml:"login"`           // one attempt, the upstream's part included
	Write           Duration `toml:"write"`           // a client or upstream that doesn't read
	Idle            Duration `toml:"idle"`            // no octet in either direction after login
	Drain           Duration `toml:"drain"`           // after SIGTERM, until relays are cut
}

// Store is where records live.
type Store struct {
	URL     string `toml:"url"`      // sqlite:PATH, memory: or postgres://...
	KeyFile string `toml:"key_file"` // made on first start, mode 0600
}

// Shared is what several machines share.
type Shared struct {
	Redis string `toml:"redis"`
}

// Portal is the self-service site.
type Portal struct {
	Address string `toml:"address"`
	URL     string `toml:"url"`
}

// Admin is the socket that the command line talks to.
type Admin struct {
	Socket string `toml:"socket"` // "" turns it off
}

// Metrics is the endpoint for Prometheus and health checks.
type Metrics struct {
	Address string `toml:"address"` // "" turns it off
}

// Log is how and what we log, to standard error.
type Log struct {
	Level  string `toml:"level"`  // "debug", "info", "warn" or "error"
	Format string `toml:"format"` // "json" or "console"
}

// Audit is how many audit events stay in the store, and where else they go.
type Audit struct {
	Keep Duration `toml:"keep"` // older ones are removed
	Most int      `toml:"most"` // of more, the oldest are removed
	File string   `toml:"file"` // each event is appended as a line of JSON; "" turns it off
}

package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"imapwarden/auth"
	"imapwarden/certs"
	"imapwarden/configs"
	"imapwarden/policy"
	"imapwarden/proxy"
)

// This file turns each part of the configuration into that part's own settings.

func authenticator(c configs.MFA, records auth.Records, keys *auth.Keys, log *zap.Logger) *auth.Authenticator {
	return &auth.Authenticator{Records: records, Keys: keys, CodeSeparator: c.CodeSeparator, Grant: grants(c.Grant), Log: log}
}

func grants(c configs.Grant) auth.GrantSettings {
	return auth.GrantSettings{
		From:           c.From,
		IPv4Prefix:     c.IPv4Prefix,
		IPv6Prefix:     c.IPv6Prefix,
		Absolute:       c.Absolute.D(),
		Idle:           c.Idle.D(),
		ClientAbsolute: c.TLSClient.Absolute.D(),
		ClientIdle:     c.TLSClient.Idle.D(),
	}
}

func names(config *configs.Config) auth.Names {
	return auth.Names{DefaultDomain: config.DefaultDomain, Unicode: config.AccountNames == "unicode"}
}

// directory is the administration of accounts, for the server and for commands alike.
func directory(config *configs.Config, records auth.Records, keys *auth.Keys) *auth.Directory {
	return &auth.Directory{
		Records: records,
		Keys:    keys,
		Names:   names(config),
		Issuer:  config.Hostname,
		Grant:   grants(config.MFA.Grant),
	}
}

func certificates(c configs.TLS, log *zap.Logger) (*certs.Files, error) {
	var pairs []certs.Pair
	for _, p := range c.Certificates {
		pairs = append(pairs, certs.Pair{Cert: p.Cert, Key: p.Key})
	}
	files, err := certs.Load(pairs)
	if err != nil {
		return nil, err
	}
	files.Log = log
	return files, nil
}

var tlsVersions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

func limits(c configs.Limits) policy.Limits {
	// To policy zero is the default, to the file it is none.
	none := func(n int) int {
		if n == 0 {
			return -1
		}
		return n
	}
	var tarpit []time.Duration
	for _, step := range c.Tarpit {
		tarpit = append(tarpit, step.D())
	}
	return policy.Limits{
		Observe:                c.Mode == "observe",
		Observed:               c.Observe,
		AddressPerMinute:       c.AddressPerMinute,
		AddressPerDay:          c.AddressPerDay,
		NATShare:               none(c.NATShare),
		NetworkAccounts:        c.NetworkAccounts,
		NetworkUnknown:         c.NetworkUnknown,
		Ban:                    c.Ban.D(),
		LongestBan:             c.LongestBan.D(),
		AccountFailures:        c.AccountFailures,
		AccountPenalty:         c.AccountPenalty.D(),
		AccountCodes:           c.AccountCodes,
		FamiliarPerDay:         c.FamiliarPerDay,
		AccountNetworks:        c.AccountNetworks,
		AccountNetworkFailures: c.AccountNetworkFailures,
		PasswordPerHour:        c.PasswordPerHour,
		PasswordPerDay:         c.PasswordPerDay,
		UnprovedPerHour:        none(c.UnprovedPerHour),
		StrangersPerHour:       c.StrangersPerHour,
		AlarmShare:             c.AlarmShare,
		Tarpit:                 tarpit,
		TarpitPlaces:           c.TarpitPlaces,
		Decoys:                 c.Decoys,
		Trusted:                c.Trusted,
		Webmail:                c.Webmail,
		ConnectionsBeforeLogin: c.ConnectionsBeforeLogin,
		TotalBeforeLogin:       c.TotalBeforeLogin,
		PerAccountAndAddress:   c.PerAccountAndAddress,
		PerAccount:             c.PerAccount,
	}
}

// inProportion makes the tarpit's steps shorter where all refusals come sooner than its first: no
// refusal is to last longer for the first failure than mfa.refusal_delay says.
func inProportion(steps []time.Duration, delay time.Duration) []time.Duration {
	out := slices.Clone(steps)
	for i := range out {
		if first := steps[0]; delay < first {
			out[i] = time.Duration(float64(out[i]) * float64(delay) / float64(first))
		}
	}
	return out
}

func timeouts(c configs.Timeouts) proxy.Timeouts {
	return proxy.Timeouts{
		Handshake:       c.Handshake.D(),
		Command:         c.Command.D(),
		Unauthenticated: c.Unauthenticated.D(),
		Login:           c.Login.D(),
		Write:           c.Write.D(),
		Idle:            c.Idle.D(),
	}
}

// routes gives each account its upstream.
func routes(config *configs.Config) (func(account string) *proxy.Upstream, error) {
	upstreams := make(map[string]*proxy.Upstream)
	for _, c := range config.Upstreams {
		u, err := upstream(c)
		if err != nil {
			return nil, err
		}
		upstreams[c.Name] = u
	}
	return func(account string) *proxy.Upstream { return upstreams[upstreamOf(config, account).Name] }, nil
}

// hasMaster says whether app passwords of the account work without the vault.
func hasMaster(config *configs.Config, account string) bool {
	return upstreamOf(config, account).Login == "master"
}

// upstreamOf is the account's upstream: that of the first route that fits, else the first one.
func upstreamOf(config *configs.Config, account string) configs.Upstream {
	_, domain, _ := strings.Cut(account, "@")
	for _, r := range config.Routes {
		if r.Account == account && account != "" || r.Domain != "" && r.Domain == domain {
			i := slices.IndexFunc(config.Upstreams, func(u configs.Upstream) bool { return u.Name == r.Upstream })
			return config.Upstreams[i] // the configuration was checked
		}
	}
	return config.Upstreams[0]
}

// master is the upstream's master user, nil where the account's own password is used.
func master(c configs.Upstream) (*proxy.Master, error) {
	if c.Login != "master" {
		return nil, nil
	}
	password, err := c.Master.Secret()
	if err != nil {
		return nil, err
	}
	m := &proxy.Master{User: c.Master.User, Password: password}
	if c.Master.Style == "separator" {
		m.Separator = c.Master.Separator
	}
	return m, nil
}

// rules opens the files that the rules name. Their Watch reads these again when they change. With an
// error they can be used as well: nothing is in a list that can't be read, and a file of [geo] that
// can't be is absent.
func rules(config *configs.Config, log *zap.Logger) (policy.Rules, error) {
	places, bad := geo(config, log)
	files := make(map[string]*policy.File[*policy.NetworkSet]) // what several rules name is read once
	var list policy.Rules
	for i, c := range config.Rules {
		since, until := c.Period()
		rule := policy.Rule{
			Name:         c.Title(i),
			Accounts:     c.Accounts,
			Countries:    c.Countries,
			Owners:       c.Owners,
			Geo:          places,
			TLS:          c.TLS,
			Programs:     c.Programs,
			Since:        since,
			Until:        until,
			Weekdays:     c.Days(),
			From:         c.Hours.From,
			To:           c.Hours.To,
			Zone:         c.Zone.Location(),
			Deny:         c.Action == "deny",
			SecondFactor: c.SecondFactor,
			ReadOnly:     c.ReadOnly,
			MaxSessions:  c.MaxSessions,
		}
		if len(c.Networks) > 0 {
			rule.Networks = policy.NewNetworkSet(c.Networks...)
		}
		for _, path := range c.NetworkFiles {
			if files[path] == nil {
				var err error
				if files[path], err = policy.OpenNetworks(path); err != nil {
					bad = errors.Join(bad, fmt.Errorf("rule %q: %w", rule.Name, unprefixed(err)))
				}
			}
			rule.NetworkFiles = append(rule.NetworkFiles, files[path])
		}
		list = append(list, rule)
	}
	return list, bad
}

// geo opens the files that the rules need. One that isn't there yet is no error: what becomes
// of these rules until it is, is a setting.
func geo(config *configs.Config, log *zap.Logger) (_ *policy.Geo, bad error) {
	g := &policy.Geo{Refuse: config.Geo.Absent == "refuse"}
	for _, file := range openGeo(config, g) {
		switch {
		case errors.Is(file.err, fs.ErrNotExist):
			log.Warn("rules need a file that isn't there yet", zap.String("until_then", config.Geo.Absent), zap.Error(file.err))
		case file.err != nil:
			bad = errors.Join(bad, fmt.Errorf("%s: %w", file.key, unprefixed(file.err)))
		}
	}
	return g, bad
}

// opened is how it went to open the file that a setting names.
type opened struct {
	key string
	err error
}

func openGeo(config *configs.Config, g *policy.Geo) []opened {
	var countries, owners error
	if slices.ContainsFunc(config.Rules, func(r configs.Rule) bool { return len(r.Countries) > 0 }) {
		g.Countries, countries = policy.OpenCountries(config.Geo.Countries)
	}
	if slices.ContainsFunc(config.Rules, func(r configs.Rule) bool { return len(r.Owners) > 0 }) {
		g.Owners, owners = policy.OpenOwners(config.Geo.Owners)
	}
	return []opened{{"geo.countries", countries}, {"geo.owners", owners}}
}

func upstream(c configs.Upstream) (*proxy.Upstream, error) {
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", c.Name, err)
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cmp.Or(c.ServerName, host)}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("upstream %s: reading its CA: %w", c.Name, err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("upstream %s: no PEM certificate in %s", c.Name, c.CA)
		}
	}
	master, err := master(c)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", c.Name, err)
	}
	return &proxy.Upstream{
		Master:    master,
		Name:      c.Name,
		Address:   c.Address,
		TLS:       proxy.UpstreamTLS(c.TLS),
		TLSConfig: settings,
		Forward:   proxy.Forward(c.Forward),
		Dial:      (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext,
	}, nil
}

// newLogger logs to w. The fields of a line are data, never part of its message.
func newLogger(w io.Writer, c configs.Log) *zap.Logger {
	level, err := zapcore.ParseLevel(c.Level)
	if err != nil {
		level = zapcore.InfoLevel // the configuration was checked
	}
	settings := zap.NewProductionEncoderConfig()
	settings.EncodeTime = zapcore.ISO8601TimeEncoder
	settings.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(settings)
	if c.Format == "console" {
		settings.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(settings)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), level))
}

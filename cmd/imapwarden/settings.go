package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
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
	return policy.Limits{
		Observe:                c.Mode == "observe",
		AddressPerMinute:       c.AddressPerMinute,
		AddressPerDay:          c.AddressPerDay,
		AccountFailures:        c.AccountFailures,
		AccountPenalty:         c.AccountPenalty.D(),
		ConnectionsBeforeLogin: c.ConnectionsBeforeLogin,
		TotalBeforeLogin:       c.TotalBeforeLogin,
		PerAccountAndAddress:   c.PerAccountAndAddress,
		PerAccount:             c.PerAccount,
	}
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

func rules(config *configs.Config) policy.Rules {
	var list policy.Rules
	for i, c := range config.Rules {
		since, until := c.Period()
		list = append(list, policy.Rule{
			Name:         c.Title(i),
			Accounts:     c.Accounts,
			Networks:     c.Networks,
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
		})
	}
	return list
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
		Dial:      (&net.Dialer{KeepAlive: 5 * time.Minute}).DialContext,
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

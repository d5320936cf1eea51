package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"imapwarden/configs"
)

// parsed is a configuration as serve has it, whatever else is wrong with it.
func parsed(t *testing.T, dir, text string) *configs.Config {
	t.Helper()
	config, problems := configs.Parse(filepath.Join(dir, "w.toml"), []byte(text), "rule", "geo")
	if config == nil {
		t.Fatalf("not loaded: %v", problems)
	}
	return config
}

// Every setting of a rule comes from the file: none is left at its zero value.
func TestRules(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "vpn.txt"), []byte("10.0.0.0/8\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := parsed(t, dir, `
geo = { countries = "country.mmdb", owners = "asn.mmdb", absent = "refuse" }
[[rule]]
name = "all of it"
accounts = ["*@example.org"]
networks = ["192.0.2.0/24"]
network_files = ["vpn.txt"]
countries = ["DE"]
owners = [64496]
tls = ["1.3"]
programs = ["thunderbird*"]
since = "2026-12-01"
until = "2027-12-01"
weekdays = ["mon"]
hours = "08:00-18:00"
zone = "UTC"
action = "deny"
second_factor = "required"
read_only = true
max_sessions = 7
[[rule]]
network_files = ["vpn.txt"]
`)
	core, logs := observer.New(zapcore.WarnLevel)
	got, err := rules(config, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	for field, value := range reflect.ValueOf(got[0]).Fields() {
		if value.IsZero() {
			t.Errorf("%s isn't set", field.Name)
		}
	}
	if got[1].Networks != nil || got[1].NetworkFiles[0] != got[0].NetworkFiles[0] {
		t.Error("networks that nobody has named, or a file that is read twice")
	}
	if logs.FilterMessage("rules need a file that isn't there yet").Len() != 2 {
		t.Errorf("logged %v", logs.All())
	}
	if _, known := got[0].Geo.Countries.Value(); known || !got[0].Geo.Refuse || got[0].Zone != time.UTC {
		t.Errorf("rule: %+v", got[0])
	}
}

func TestRulesWithoutTheirFiles(t *testing.T) {
	dir := t.TempDir()
	config := parsed(t, dir, "[[rule]]\nname = 'office'\n")
	config.Rules[0].NetworkFiles = []string{filepath.Join(dir, "vpn.txt")} // gone since it was checked
	if _, err := rules(config, zap.NewNop()); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), `rule "office": reading `) {
		t.Errorf("got %v", err)
	}

	config = parsed(t, dir, "[[rule]]\nname = 'abroad'\n")
	config.Rules[0].Countries, config.Geo.Countries = []string{"DE"}, filepath.Join(dir, "w.mmdb")
	if err := os.WriteFile(config.Geo.Countries, []byte("no"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := rules(config, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "MaxMind's format") {
		t.Errorf("got %v", err)
	}
	config = parsed(t, dir, "geo.owners = 'nowhere.mmdb'\n[[rule]]\nname = 'all'\n")
	got, err := rules(config, zap.NewNop())
	if err != nil || got[0].Geo.Owners != nil {
		t.Errorf("files that no rule needs: %v", err)
	}
}

package configs

import (
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The example has the defaults in it, and nobody who starts from it is warned.
func TestExampleIsDefault(t *testing.T) {
	dir := folder(t)
	text := strings.NewReplacer("/etc/imapwarden/", dir+"/", "/var/lib/imapwarden/", dir+"/").Replace(Example)
	got, problems := Parse(filepath.Join(dir, "w.toml"), []byte(text))
	if got == nil || len(problems) > 0 {
		t.Fatalf("not loaded: %v", problems)
	}
	wantListeners := []Listener{{Address: "0.0.0.0:993", TLS: "implicit"}, {Address: "0.0.0.0:143", TLS: "starttls"}}
	if diff := cmp.Diff(wantListeners, got.Listeners); diff != "" {
		t.Errorf("clients don't find server and ports as before:\n%s", diff)
	}
	if len(got.TLS.Certificates) == 0 {
		t.Error("it doesn't show what is required")
	}
	wantUpstream := DefaultUpstream()
	wantUpstream.Address, wantUpstream.TLS = "127.0.0.1:1143", "none" // where dovecot.conf puts it
	if diff := cmp.Diff([]Upstream{wantUpstream}, got.Upstreams); diff != "" {
		t.Error(diff)
	}
	if got.Store.URL != "sqlite:"+dir+"/imapwarden.db" || got.Store.KeyFile != dir+"/master.key" {
		t.Errorf("the store is at %q with key %q", got.Store.URL, got.Store.KeyFile)
	}
	if got.Alerts.KeyFile != dir+"/webhook.key" {
		t.Errorf("alerts are signed with %q", got.Alerts.KeyFile)
	}
	got.Store, got.Alerts.KeyFile = Default().Store, Default().Alerts.KeyFile
	got.Hostname, got.Listeners, got.TLS.Certificates, got.Upstreams = "", nil, nil, nil
	if diff := cmp.Diff(Default(), got); diff != "" {
		t.Errorf("other values than the defaults (-want +got):\n%s", diff)
	}
}

// Every key is in the example with something said about it, in use or behind a "#".
func TestExampleHasEveryKey(t *testing.T) {
	var visit func(reflect.Type, string)
	visit = func(table reflect.Type, header string) {
		for field := range table.Fields() {
			key, kind := field.Tag.Get("toml"), field.Type
			if kind.Kind() == reflect.Slice {
				kind = kind.Elem()
			}
			if isTable(kind) {
				visit(kind, strings.TrimPrefix(header+"."+key, "."))
				continue
			}
			if !keyPattern(key).MatchString(section(header)) {
				t.Errorf("%s.%s isn't explained", header, key)
			}
		}
	}
	visit(reflect.TypeFor[Config](), "")
}

func keyPattern(key string) *regexp.Regexp {
	return regexp.MustCompile(`(?m)(^#? *|[{,] )` + key + ` *=`)
}

// The rules in the example mean what their text says, once the "#" is removed.
func TestExampleRules(t *testing.T) {
	var text string
	for _, block := range regexp.MustCompile(`(?m)^# \[\[rule\]\]\n(# [a-z_]+ *= .*\n)+`).FindAllString(Example, -1) {
		text += regexp.MustCompile(`(?m)^# `).ReplaceAllString(block, "")
	}
	text = regexp.MustCompile(`(?m)^(network_files|countries|owners) .*`).ReplaceAllString(text, "") // files of one's own
	config, problems := Parse(filepath.Join(folder(t), "w.toml"), []byte(required+text))
	if config == nil {
		t.Fatalf("not loaded: %v", problems)
	}
	var got []string
	for i, r := range config.Rules {
		got = append(got, r.Title(i)+": "+r.SecondFactor)
	}
	want := []string{"staff: required", "admins first: required", "all from December on: required", "office: observe"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(problems) != 1 || problems[0].Key != "rule[3].second_factor" {
		t.Errorf("other problems than that the office needs no codes: %v", problems)
	}
}

// section is the part of the example with a table's keys: after its header, or,
// where it is written inline, the line with its name.
func section(header string) string {
	name := header[strings.LastIndex(header, ".")+1:]
	if header == "" {
		return Example[:strings.Index(Example, "\n[")]
	}
	var all string
	for _, i := range regexp.MustCompile(`(?m)^(# )?\[+`+regexp.QuoteMeta(header)+`\]`).FindAllStringIndex(Example, -1) {
		rest := Example[i[1]:]
		if end := regexp.MustCompile(`(?m)^(# )?\[[a-z\[]`).FindStringIndex(rest); end != nil {
			rest = rest[:end[0]]
		}
		all += rest
	}
	if all != "" {
		return all
	}
	if i := keyPattern(name).FindStringIndex(Example); i != nil {
		rest := Example[i[0]:]
		return rest[:strings.Index(rest, "}")]
	}
	return ""
}

func TestDovecotExample(t *testing.T) {
	doveconf, err := exec.LookPath("doveconf")
	if err != nil {
		t.Fatal("doveconf is missing: ./test installs it")
	}
	path := filepath.Join(t.TempDir(), "dovecot.conf")
	write(t, path, DovecotExample)
	for setting, want := range map[string]string{
		"login_trusted_networks":                              "127.0.0.1 ::1",
		"auth_failure_delay":                                  "0",
		"service/imap-login/inet_listener/imap/port":          "1143", // as upstream.address of the example
		"service/imap-login/inet_listener/imap/address":       "127.0.0.1, ::1",
		"service/imap-login/inet_listener/imaps/port":         "0",
		"service/anvil/unix_listener/anvil-auth-penalty/mode": "00",
	} {
		out, err := exec.CommandContext(t.Context(), doveconf, "-c", path, "-h", setting).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("doveconf: %v: %s is %q, want %q", err, setting, got, want)
		}
	}
}

// The master user's lines are settings of Dovecot, once the "#" is removed.
func TestDovecotExampleMaster(t *testing.T) {
	doveconf, err := exec.LookPath("doveconf")
	if err != nil {
		t.Fatal("doveconf is missing: ./test installs it")
	}
	path := filepath.Join(t.TempDir(), "dovecot.conf")
	lines := regexp.MustCompile(`(?s)\n#auth_master_user_separator.*?\n#}\n`).FindString(DovecotExample)
	write(t, path, strings.ReplaceAll(lines, "\n#", "\n"))
	out, err := exec.CommandContext(t.Context(), doveconf, "-c", path, "-n").CombinedOutput()
	for _, want := range []string{"auth_master_user_separator = *", "passdb {", "  master = yes", "  result_success = continue"} {
		if err != nil || !strings.Contains(string(out), want+"\n") {
			t.Errorf("doveconf: %v: there is no %q in\n%s", err, want, out)
		}
	}
}

func TestServiceUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Fatal("systemd-analyze is missing: ./test installs it")
	}
	path := filepath.Join(t.TempDir(), "imapwarden.service")
	write(t, path, strings.ReplaceAll(ServiceUnit, "/usr/local/bin/imapwarden", "/bin/true"))
	if out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", path).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

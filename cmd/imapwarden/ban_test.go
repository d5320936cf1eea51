package main

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"imapwarden/admin"
	"imapwarden/auth"
	"imapwarden/policy"
	"imapwarden/store/memory"
)

// Where a server runs, its bans are meant, and it knows at once.
func TestBansOfAServer(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "imapwarden.toml")
	paths := strings.NewReplacer(`"sqlite:`, `"sqlite:`+dir+"/", `"master.key"`, `"`+dir+`/master.key"`, `"admin.sock"`, `"`+dir+`/admin.sock"`)
	if err := os.WriteFile(file, []byte(paths.Replace(config)), 0o600); err != nil {
		t.Fatal(err)
	}
	held := memory.New()
	gate := &policy.Gate{}
	began := time.Now().UTC().Truncate(time.Second)
	made := policy.Ban{
		Network: netip.MustParsePrefix("198.51.100.0/24"), Signal: policy.NetworkAccounts,
		Since: began, Until: began.Add(time.Hour), Times: 3, Detail: "11 accounts\x1b[2J",
	}
	if err := held.PutBans(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	if err := gate.Load(t.Context(), held); err != nil {
		t.Fatal(err)
	}
	serveBans(t, filepath.Join(dir, "admin.sock"), &admin.Server{Directory: &auth.Directory{}, Audit: held, Events: held, Bans: gate, Log: zap.NewNop()})

	for _, step := range []struct {
		args []string
		want string // a regular expression; of standard error where the status isn't 0
		code int
	}{
		{[]string{"list"}, `(?m)^198\.51\.100\.0/24 +too many accounts failed +` + clockPattern(began) + ` +.* +3$`, 0},
		{[]string{"add", "203.0.113.0/24", "--for", "2h"}, `^203\.0\.113\.0/24: banned until [^\n]+\n$`, 0},
		{[]string{"remove", "198.51.100.0/24"}, `^198\.51\.100\.0/24: not banned any more\n$`, 0},
		{[]string{"remove", "198.51.100.0/24"}, `^imapwarden: refused: 198\.51\.100\.0/24 is not banned;`, 1},
		{[]string{"list", "--json"}, `^{"network":"203\.0\.113\.0/24",[^\n]+ by admin socket"}\n$`, 0},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"ban", "--config", file}, step.args...), nil, &stdout, &stderr)
		said := stdout.String()
		if step.code != 0 {
			said = stderr.String()
		}
		if code != step.code || !regexp.MustCompile(step.want).MatchString(said) {
			t.Errorf("%q: exit status %d, want %d; it says\n%s%s\nand not %s", step.args, code, step.code, &stdout, &stderr, step.want)
		}
	}
	if inForce, err := gate.Bans(t.Context()); err != nil || len(inForce) != 1 || inForce[0].Network.String() != "203.0.113.0/24" {
		t.Errorf("the gate has %v, %v", inForce, err)
	}
	if d, _ := gate.Begin(policy.Attempt{Addr: netip.MustParseAddr("203.0.113.9"), Account: "alice"}); d.Allowed || d.Signal != policy.Banned {
		t.Errorf("an attempt from what was banned: %+v", d)
	}
}

func clockPattern(t time.Time) string { return regexp.QuoteMeta(clock(t)) }

func serveBans(t *testing.T, socket string, server *admin.Server) {
	t.Helper()
	listener, err := admin.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
}

package certs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libdns/libdns"

	"imapwarden/certs"
)

const challengeValue = "MsijOYZxqyjGnFGwhjrhfg-Xgbl5r68WPda0J9EgqtI"

func challengeOf(name, value string) []libdns.Record {
	return []libdns.Record{libdns.RR{Name: name, Type: "TXT", Data: value, TTL: time.Minute}}
}

// hookOf writes a program; OUT stands for the file that is returned too.
func hookOf(t *testing.T, script string) (hook *certs.Hook, out string) {
	t.Helper()
	dir := t.TempDir()
	out = filepath.Join(dir, "out")
	program := filepath.Join(dir, "hook")
	script = "#!/bin/sh\n" + strings.ReplaceAll(script, "OUT", out)
	// Not by os.WriteFile: a process that is started meanwhile must not inherit it open for writing.
	syscall.ForkLock.RLock()
	err := os.WriteFile(program, []byte(script), 0o700)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	return certs.NewHook(program), out
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestHookIsToldWhatToDo(t *testing.T) {
	t.Setenv("IMAPWARDEN_SECRET", "of ours")
	hook, out := hookOf(t, `printf '%s\n' "$#" "$@" "secret $IMAPWARDEN_SECRET" "$(pwd)" "$PATH" >>OUT`)
	records := challengeOf("_acme-challenge.mail", "-"+challengeValue)
	for _, do := range []struct {
		word string
		call func(context.Context, string, []libdns.Record) ([]libdns.Record, error)
	}{{"present", hook.AppendRecords}, {"cleanup", hook.DeleteRecords}} {
		done, err := do.call(t.Context(), "example.org.", records)
		if err != nil {
			t.Fatal(err)
		}
		if len(done) != 1 || done[0].RR() != records[0].RR() {
			t.Errorf("%s returned %+v", do.word, done)
		}
		if _, ok := done[0].(libdns.TXT); !ok {
			t.Errorf("%s returned a %T", do.word, done[0])
		}
		want := "3\n" + do.word + "\n_acme-challenge.mail.example.org.\n-" + challengeValue +
			"\nsecret \n/\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
		if got := readFile(t, out); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		os.Remove(out)
	}
}

func TestHookFails(t *testing.T) {
	for _, test := range []struct {
		name, script, want string
	}{
		{"with a word", "echo 'no such\nzone' >&2; exit 3", `hook present _acme-challenge.example.org.: exit status 3, and said "no such zone"`},
		{"without one", "exit 1", "exit status 1, and said nothing"},
		{"by a signal", "kill -TERM $$", "signal: terminated, and said nothing"},
		{"with bytes", `printf '\377\000x'; exit 1`, `and said "?\x00x"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			hook, _ := hookOf(t, test.script)
			done, err := hook.AppendRecords(t.Context(), "example.org.", challengeOf("_acme-challenge", challengeValue))
			if err == nil || !strings.Contains(err.Error(), test.want) || done != nil {
				t.Errorf("got %v, %v; want %q", done, err, test.want)
			}
		})
	}
	hook := certs.NewHook(filepath.Join(t.TempDir(), "none"))
	if _, err := hook.DeleteRecords(t.Context(), "example.org.", challengeOf("_acme-challenge", challengeValue)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: got %v", err)
	}
}

func TestHookMayNotSayTooMuch(t *testing.T) {
	hook, out := hookOf(t, "head -c 10000000 /dev/zero | tr '\\0' x; echo done >OUT; exit 1")
	_, err := hook.AppendRecords(t.Context(), "example.org.", challengeOf("_acme-challenge", challengeValue))
	if err == nil || len(err.Error()) > 5000 || strings.Count(err.Error(), "x") < 4096 || !strings.HasSuffix(err.Error(), `x" and more`) {
		t.Errorf("got an error of %d octets", len(fmt.Sprint(err)))
	}
	if got := readFile(t, out); got != "done\n" { // it could say it all
		t.Errorf("it came to %q", got)
	}
}

// A hook whose time is over ends with all that it started, for whom nobody waits.
func TestHookEndsWithAllItStarted(t *testing.T) {
	for _, test := range []struct {
		name  string
		limit time.Duration
		want  string
	}{
		{"by its limit", 5 * time.Second, "longer than 5s and was ended, and said \"waiting\""},
		{"by its context", time.Hour, context.Canceled.Error()},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			hook, out := hookOf(t, "echo waiting; sleep 1000 & echo $! >OUT.part; mv OUT.part OUT; wait")
			hook.Limit = test.limit
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			failed := make(chan error, 1)
			go func() {
				_, err := hook.AppendRecords(ctx, "example.org.", challengeOf("_acme-challenge", challengeValue))
				failed <- err
			}()
			if test.limit == time.Hour {
				for _, err := os.Stat(out); err != nil; _, err = os.Stat(out) {
					time.Sleep(10 * time.Millisecond)
				}
				cancel()
			}
			if err := <-failed; err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			child, err := strconv.Atoi(strings.TrimSpace(readFile(t, out)))
			if err != nil {
				t.Fatal(err)
			}
			for alive(child) { // the kernel may need a moment; without an end, the test's own time is over
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}

// alive says whether the process runs: one that has ended may still wait for init.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestProvidersRefuseWhatIsNoChallenge(t *testing.T) {
	hook, out := hookOf(t, "touch OUT")
	update, err := certs.NewRFC2136("127.0.0.1:1", "example.org", "key", "", "c2VjcmV0")
	if err != nil {
		t.Fatal(err)
	}
	for name, provider := range map[string]interface {
		libdns.RecordAppender
		libdns.RecordDeleter
	}{"hook": hook, "RFC 2136": update} {
		for _, record := range []libdns.RR{
			{Name: "a", Type: "A", Data: "192.0.2.1"},
			{Name: "a", Type: "TXT"},
			{Name: "a", Type: "TXT", Data: "two words"},
			{Name: "a", Type: "TXT", Data: `quo"te`},
			{Name: "a", Type: "TXT", Data: strings.Repeat("a", 256)},
		} {
			list := append(challengeOf("_acme-challenge", challengeValue), record)
			if _, err := provider.AppendRecords(t.Context(), "example.org.", list); err == nil || !strings.Contains(err.Error(), "none of a challenge") {
				t.Errorf("%s: appending %+v: got %v", name, record, err)
			}
			if _, err := provider.DeleteRecords(t.Context(), "example.org.", list); err == nil || !strings.Contains(err.Error(), "none of a challenge") {
				t.Errorf("%s: deleting %+v: got %v", name, record, err)
			}
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("the hook was run")
	}
}

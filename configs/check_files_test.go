package configs

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestCheckStore(t *testing.T) {
	dir := folder(t)
	write(t, filepath.Join(dir, "file"), "")
	write(t, filepath.Join(dir, "good.key"), "")
	write(t, filepath.Join(dir, "shared.key"), "")
	if err := os.Chmod(filepath.Join(dir, "shared.key"), 0o640); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]string{
		`url = "sqlite:w.db"`:         nil,
		`url = "sqlite:nowhere/w.db"`: {`w.toml:6: store.url = "sqlite:nowhere/w.db": there is no folder nowhere: make it, writable for the user that imapwarden runs as and nobody else`},
		`url = "sqlite:file/w.db"`:    {`w.toml:6: store.url = "sqlite:file/w.db": file is not a folder`},
		`key_file = "new.key"`:        nil,
		`key_file = "good.key"`:       nil,
		`key_file = "shared.key"`:     {`w.toml:6: store.key_file = "shared.key": others than its owner may read it (mode 0640), and with the store make codes: chmod 600 shared.key`},
	} {
		if diff := cmp.Diff(want, said(t, dir, required+"[store]\n"+text)); diff != "" {
			t.Errorf("%s\n%s", text, diff)
		}
	}
}

func TestCheckAuditFile(t *testing.T) {
	dir := folder(t)
	for _, name := range []string{"logs", "logs/sub"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "logs", "audit.log"), "{}\n")
	for file, want := range map[string][]string{
		"audit.log":           nil,
		"logs/audit.log":      nil,
		"nowhere/audit.log":   {`w.toml:5: audit.file = "nowhere/audit.log": there is no folder nowhere: make it, writable for the user that imapwarden runs as and nobody else`},
		"logs/audit.log/deep": {`w.toml:5: audit.file = "logs/audit.log/deep": logs/audit.log is not a folder`},
		"logs/sub":            {`w.toml:5: audit.file = "logs/sub": is a folder: must be the path of a file, which is made where it isn't there`},
	} {
		if diff := cmp.Diff(want, said(t, dir, required+`audit.file = "`+file+`"`)); diff != "" {
			t.Errorf("%s\n%s", file, diff)
		}
	}
}

// A socket is safe in a folder of our own, wherever that is.
func TestCheckSocket(t *testing.T) {
	dir := folder(t)
	public := filepath.Join(dir, "public")
	if err := os.MkdirAll(filepath.Join(public, "ours"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(public, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	for socket, warned := range map[string]bool{
		"admin.sock":               false,
		"new/admin.sock":           false,
		"public/admin.sock":        true,
		"public/new/admin.sock":    true,
		"public/ours/admin.sock":   false,
		"public/ours/n/admin.sock": false,
		"/run/n/admin.sock":        false,
	} {
		got := said(t, dir, required+`admin.socket = "`+socket+`"`)
		if (len(got) > 0) != warned || warned && !strings.Contains(got[0], "may put a socket of their own there first") {
			t.Errorf("%s: %q", socket, got)
		}
	}
}

// Where a file may not be read, its path is not what is wrong.
func TestCheckForbidden(t *testing.T) {
	dir := folder(t)
	if err := os.Chmod(filepath.Join(dir, "privkey.pem"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	done := make(chan []string)
	go func() {
		// Another user for this thread alone, which ends with the goroutine.
		runtime.LockOSThread()
		if os.Getuid() == 0 {
			unix.Setfsuid(65534)
		}
		done <- said(t, dir, required)
	}()
	const end = `can't be read: permission denied: let the user that imapwarden runs as read it, and enter the folders above it`
	got := <-done
	if len(got) == 0 || !strings.HasSuffix(got[len(got)-1], end) {
		t.Errorf("got %q", got)
	}
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"imapwarden/admin"
	"imapwarden/auth"
	"imapwarden/certs"
	"imapwarden/configs"
	"imapwarden/store/memory"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"imapwarden": main})
}

const config = `hostname = "mail.example.org"
default_domain = "example.org"
[[listener]]
address = "127.0.0.1:1993"
tls = "implicit"
[tls]
certificates = [{ cert = "cert.pem", key = "key.pem" }]
[[upstream]]
name = "default"
address = "127.0.0.1:143"
tls = "none"
[store]
url = "sqlite:imapwarden.db"
key_file = "master.key"
[admin]
socket = "admin.sock"
`

func TestScripts(t *testing.T) {
	cert, key, err := certs.SelfSigned([]string{"mail.example.org"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("IMAPWARDEN_CONFIG", filepath.Join(env.WorkDir, "imapwarden.toml"))
			// Under -race each command would wait for a second at its end.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return errors.Join(
				os.WriteFile(filepath.Join(env.WorkDir, "imapwarden.toml"), []byte(config), 0o600),
				os.WriteFile(filepath.Join(env.WorkDir, "cert.pem"), cert, 0o600),
				os.WriteFile(filepath.Join(env.WorkDir, "key.pem"), key, 0o600),
			)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":      status,
			"code":        code,
			"serve-admin": serveAdmin,
		},
	})
}

// status N COMMAND... runs a command that must end with exit status N.
func status(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d instead of %d", got, want)
	}
}

// code FILE sets CODE to a code for the enrolment that account enroll --json
// printed to the file, WRONG to what is none, and writes CODE to code.txt.
func code(ts *testscript.TestScript, _ bool, args []string) {
	var enrolment struct{ Secret string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &enrolment))
	var near []string
	now := time.Now()
	for step := -3; step <= 3; step++ {
		c, err := totp.GenerateCode(enrolment.Secret, now.Add(time.Duration(step)*30*time.Second))
		ts.Check(err)
		near = append(near, c)
	}
	wrong := []string{"111111", "222222", "333333", "444444", "555555", "666666", "777777", "888888"}
	wrong = slices.DeleteFunc(wrong, func(c string) bool { return slices.Contains(near, c) })
	ts.Setenv("CODE", near[3])
	ts.Setenv("WRONG", wrong[0])
	ts.Check(os.WriteFile(ts.MkAbs("code.txt"), []byte(near[3]+"\n"), 0o600))
}

// serveAdmin PATH answers at the socket until the script ends, with records of its own.
func serveAdmin(ts *testscript.TestScript, _ bool, args []string) {
	listener, err := admin.Listen(ts.MkAbs(args[0]))
	ts.Check(err)
	keys, err := auth.CreateKeys(ts.MkAbs("server.key"))
	ts.Check(err)
	held := memory.New()
	settings := configs.Default()
	settings.Hostname = "mail.example.org"
	server := &admin.Server{
		Directory: directory(settings, held, keys),
		Audit:     held,
		Events:    held,
		Log:       zap.NewNop(),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener) }()
	ts.Defer(func() {
		cancel()
		ts.Check(<-ended)
	})
}

// Where the socket is there and we may not use it, the store is left alone.
func TestForbiddenSocket(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "admin.sock")
	listener, err := admin.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c := configs.Default()
	c.Admin.Socket = socket
	c.Store.URL = "sqlite:" + filepath.Join(dir, "imapwarden.db")
	c.Store.KeyFile = filepath.Join(dir, "master.key")

	failure := make(chan error)
	go func() {
		// Another user for this thread alone, which ends with the goroutine.
		runtime.LockOSThread()
		if os.Getuid() == 0 {
			unix.Setfsuid(65534)
		} else if err := os.Chmod(socket, 0); err != nil {
			failure <- err
			return
		}
		_, err := openRecords(context.Background(), c)
		failure <- err
	}()
	if err := <-failure; !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "as root") {
		t.Errorf("got %v, want permission denied and what to do", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "imapwarden.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the store was opened (%v)", err)
	}
}

// What root makes in another user's folder, that user's server can't open.
func TestRootMakesNoFilesForOthers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can do this harm")
	}
	dir := t.TempDir()
	c := configs.Default()
	c.Admin.Socket = filepath.Join(dir, "admin.sock")
	c.Store.URL = "sqlite:" + filepath.Join(dir, "imapwarden.db")
	c.Store.KeyFile = filepath.Join(dir, "master.key")
	if err := os.Chown(dir, 65534, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := openRecords(t.Context(), c); err == nil || !strings.Contains(err.Error(), "belongs to uid 65534") {
		t.Errorf("got %v, want a refusal that names the owner", err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("%d files were made (%v)", len(files), err)
	}
}

package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"imapwarden/admin"
	"imapwarden/audit"
	"imapwarden/auth"
	"imapwarden/certs"
	"imapwarden/configs"
	"imapwarden/policy"
	"imapwarden/store"
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
			"id":          id,
			"serve-admin": serveAdmin,
			"signed-in":   signedIn,
			"has-grant":   hasGrant,
			"tamper":      tamper,
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

// id FILE sets ID to that of the JSON object in the file.
func id(ts *testscript.TestScript, _ bool, args []string) {
	var named struct{ ID string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &named))
	ts.Setenv("ID", named.ID)
}

// serveAdmin PATH answers at the socket until the script ends, with records of its own.
func serveAdmin(ts *testscript.TestScript, _ bool, args []string) {
	listener, err := admin.Listen(ts.MkAbs(args[0]))
	ts.Check(err)
	held := memory.New()
	keys, err := auth.OpenKeys(context.Background(), ts.MkAbs("server.key"), held)
	ts.Check(err)
	settings := configs.Default()
	settings.Hostname, settings.DefaultDomain = "mail.example.org", "example.org"
	settings.Upstreams = []configs.Upstream{{Name: "default", Login: "password"}}
	dir := directory(settings, held, keys)
	server := &admin.Server{
		Directory: dir,
		Audit:     held,
		Events:    held,
		Sessions:  &someSessions{},
		Explain: func(ctx context.Context, account string, source netip.Addr) (admin.Explanation, error) {
			e, err := explanation(ctx, settings, nil, dir, account, source)
			limits := new(policy.Gate).Explain(policy.Attempt{Addr: source, Account: account})
			e.Limits = &limits
			return e, err
		},
		Rotate: func(ctx context.Context) (auth.Rotation, error) { return keys.Rotate(ctx, held) },
		Log:    zap.NewNop(),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener) }()
	ts.Defer(func() {
		cancel()
		ts.Check(<-ended)
	})
}

// someSessions are alice's two and bob's one, until they are ended.
type someSessions struct {
	mu    sync.Mutex
	ended []string
}

func (s *someSessions) Sessions() []admin.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	began := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	list := []admin.Session{
		{ID: "s1", Account: "alice@example.org", Source: netip.MustParseAddr("203.0.113.7"), Program: "Mail\x1b[2J 1.0", Factor: "code", Upstream: "default", Began: began, FromClient: 999, ToClient: 1_234_567},
		{ID: "s2", Account: "alice@example.org", Source: netip.MustParseAddr("2001:db8::7"), Factor: "app-password", AppPassword: "a1", ReadOnly: true, Upstream: "default", Began: began},
		{ID: "s3", Account: "bob@example.org", Source: netip.MustParseAddr("203.0.113.8"), Factor: "none", Upstream: "default", Began: began},
	}
	return slices.DeleteFunc(list, func(one admin.Session) bool { return slices.Contains(s.ended, one.ID) })
}

func (s *someSessions) EndSession(id string) (admin.Session, bool) {
	list := s.Sessions()
	i := slices.IndexFunc(list, func(one admin.Session) bool { return one.ID == id })
	if i < 0 {
		return admin.Session{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, id)
	return list[i], true
}

func (s *someSessions) EndAccount(account string) (n int) {
	for _, one := range s.Sessions() {
		if one.Account == account {
			s.EndSession(one.ID)
			n++
		}
	}
	return n
}

// signedIn ACCOUNT FACTOR PROGRAM AGO puts a login into the script's store.
func signedIn(ts *testscript.TestScript, _ bool, args []string) {
	ago, err := time.ParseDuration(args[3])
	ts.Check(err)
	inStore(ts, func(s *store.Store) error {
		return s.Append(context.Background(), []audit.Event{{
			Time: time.Now().Add(-ago), Kind: "login", Outcome: audit.Accepted,
			Account: args[0], Factor: args[1], Program: args[2], Source: "203.0.113.7",
		}})
	})
}

// hasGrant ACCOUNT ID NETWORK puts a grant into the script's store.
func hasGrant(ts *testscript.TestScript, _ bool, args []string) {
	network, err := netip.ParsePrefix(args[2])
	ts.Check(err)
	inStore(ts, func(s *store.Store) error {
		now := time.Now()
		return s.PutGrant(context.Background(), auth.Grant{
			ID: args[1], Account: args[0], Network: network, PasswordTag: []byte("tag"),
			Created: now, LastUsed: now, Expires: now.Add(time.Hour),
		})
	})
}

func inStore(ts *testscript.TestScript, do func(*store.Store) error) {
	s, err := store.Open(context.Background(), "sqlite:"+ts.MkAbs("imapwarden.db"))
	ts.Check(err)
	ts.Check(errors.Join(do(s), s.Close()))
}

// tamper ID changes an event behind the program's back.
func tamper(ts *testscript.TestScript, _ bool, args []string) {
	db, err := sql.Open("sqlite", ts.MkAbs("imapwarden.db"))
	ts.Check(err)
	_, err = db.ExecContext(context.Background(), "UPDATE events SET account = 'nobody' WHERE id = $1", args[0])
	ts.Check(errors.Join(err, db.Close()))
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

// Two rotations at once are none, and the second is in the audit all the same.
func TestRotationInProgress(t *testing.T) {
	dir := t.TempDir()
	c := configs.Default()
	c.Admin.Socket = filepath.Join(dir, "admin.sock")
	c.Store.URL = "sqlite:" + filepath.Join(dir, "imapwarden.db")
	c.Store.KeyFile = filepath.Join(dir, "master.key")
	r, err := openRecords(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := r.rotate(t.Context()); !errors.Is(err, auth.ErrRotating) {
		t.Errorf("got %v, want that somebody else is about it", err)
	}
	events, err := r.events.Events(t.Context(), audit.Filter{})
	if err != nil || len(events) != 1 || events[0].Kind != "key.rotate" || events[0].Outcome != audit.Refused {
		t.Errorf("the audit has %+v (%v), want the refusal", events, err)
	}
}

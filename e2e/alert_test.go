package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// An alertReceiver is what an organisation sets up to be told: a web server with TLS.
type alertReceiver struct {
	t      *testing.T
	url    string
	status atomic.Int32
	posts  chan alertPost
}

type alertPost struct {
	id, signature string
	body          []byte
}

// startAlertReceiver starts one that clients' authority has certified, and that answers 204.
func startAlertReceiver(t *testing.T) *alertReceiver {
	t.Helper()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := shared.clients.issue(cert, key, "localhost"); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	r := &alertReceiver{t: t, posts: make(chan alertPost, 100)}
	r.status.Store(http.StatusNoContent)
	server := httptest.NewUnstartedServer(r)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	t.Cleanup(server.Close)
	r.url = strings.Replace(server.URL, "127.0.0.1", "localhost", 1) + "/T0KEN"
	return r
}

func (r *alertReceiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		r.t.Error(err)
	}
	r.posts <- alertPost{request.Header.Get("Imapwarden-Id"), request.Header.Get("Imapwarden-Signature"), body}
	w.WriteHeader(int(r.status.Load()))
}

// next waits for the next post, checks its signature and returns the alert.
func (r *alertReceiver) next(w *warden) (e event) {
	r.t.Helper()
	var post alertPost
	select {
	case post = <-r.posts:
	case <-time.After(patience):
		r.t.Fatal("no alert was posted")
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(mustRead(r.t, filepath.Join(w.dir, "webhook.key")))))
	if err != nil {
		r.t.Fatal("the key file isn't in hexadecimal")
	}
	known.add(hex.EncodeToString(key))
	at, _, _ := strings.Cut(strings.TrimPrefix(post.signature, "t="), ",")
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s", at, post.body)
	if want := fmt.Sprintf("t=%s,v1=%x", at, mac.Sum(nil)); post.signature != want {
		r.t.Errorf("the signature is %q, want %q", post.signature, want)
	}
	if err := json.Unmarshal(post.body, &e); err != nil || post.id != fmt.Sprint(e.ID) || !strings.HasSuffix(string(post.body), `,"imapwarden":"mail.example.test"}`) {
		r.t.Errorf("posted %s as %s: %v", post.body, post.id, err)
	}
	return e
}

// tries has somebody try a decoy, from an address of their own: it is banned then.
func (w *warden) tries(decoy, from string) {
	w.t.Helper()
	c, r := w.login(&account{name: decoy}, from, known.add(randomLetters(12)))
	c.Close()
	if r.is("OK") {
		w.t.Errorf("the decoy %s was let in", decoy)
	}
}

// Alerts reach a receiver that is there, one that comes back, and one that comes back after us.
// It sets the environment, so no other test runs beside it.
func TestAlertsReachTheWebhook(t *testing.T) {
	t.Setenv("SSL_CERT_FILE", shared.clients.file)
	t.Setenv("HTTPS_PROXY", "")
	receiver := startAlertReceiver(t)
	w := startWarden(t, settings{more: fmt.Sprintf(`[limits]
decoys = ["trap*@example.test"]
[alerts]
webhook = %q
key_file = "$dir/webhook.key"`, receiver.url)})

	w.tries("trap1@example.test", "127.1.0.1")
	first := receiver.next(w)
	if first.Kind != "alert" || first.Rule != "decoy-account" || first.Account != "trap1@example.test" || first.Source != "127.1.0.1" || first.Hash == "" {
		t.Errorf("posted %+v", first)
	}
	if stored := w.events(&account{name: first.Account}); !slices.Contains(stored, first) {
		t.Errorf("the audit has %+v and not %+v", stored, first)
	}

	receiver.status.Store(http.StatusServiceUnavailable)
	w.tries("trap2@example.test", "127.2.0.1")
	refused := receiver.next(w)
	receiver.status.Store(http.StatusNoContent)
	if again := receiver.next(w); again != refused || again.ID <= first.ID || again.Account != "trap2@example.test" {
		t.Errorf("posted %+v, and then %+v", refused, again)
	}

	receiver.status.Store(http.StatusBadGateway)
	w.tries("trap3@example.test", "127.3.0.1")
	waiting := receiver.next(w)
	w.kill()
	drain(receiver.posts)
	receiver.status.Store(http.StatusNoContent)
	w.start()
	if after := receiver.next(w); after != waiting {
		t.Errorf("posted %+v after the crash, and before %+v", after, waiting)
	}

	out := string(w.command("alerts", "test"))
	e := receiver.next(w)
	for e == waiting { // at least once, says the contract: one may have been on its way when we were killed
		e = receiver.next(w)
	}
	if e.Rule != "test" || e.ID != 0 || !strings.Contains(out, "answers 204") {
		t.Errorf("the test is %+v, and the command says %q", e, out)
	}
	receiver.status.Store(http.StatusForbidden)
	if out, err := w.run("", "alerts", "test"); err == nil || !strings.Contains(string(out), "answers 403") {
		t.Errorf("refused, the command says %q, %v", out, err)
	}
	if log := string(mustRead(t, w.log())); strings.Contains(log, "T0KEN") {
		t.Error("the log holds the webhook's URL")
	}
	w.verifies()
}

// drain takes what is there.
func drain(posts chan alertPost) {
	for {
		select {
		case <-posts:
		default:
			return
		}
	}
}

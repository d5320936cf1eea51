package audit

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	webhookTimeout = 10 * time.Second // one request, its answer included
	maxAnswer      = 64 << 10         // octets of an answer that are read
	maxAnswerText  = 200              // octets of it that are kept
)

// An Answer is what a receiver said.
type Answer struct {
	Code int    // the HTTP status
	Text string // the beginning of its body, at most 200 octets, from outside: not fit for a terminal
}

// Taken says whether the receiver has the alert.
func (a Answer) Taken() bool { return a.Code/100 == 2 }

// refused says whether it doesn't want it; 408 and 429 ask for another try.
func (a Answer) refused() bool {
	return a.Code/100 == 4 && a.Code != http.StatusRequestTimeout && a.Code != http.StatusTooManyRequests
}

// Deliver posts one event now and returns what the receiver answered, whatever that is. An
// error says that there was no answer within ten seconds, and never holds the URL.
func (h *Webhook) Deliver(ctx context.Context, e Event) (Answer, error) {
	target, err := receiver(h.URL)
	if err != nil {
		return Answer{}, err
	}
	body, err := h.body(e)
	if err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, webhookTimeout)
	defer cancel()
	request := (&http.Request{
		Method: http.MethodPost,
		URL:    target,
		Header: http.Header{
			"Content-Type":         {"application/json"},
			"User-Agent":           {"imapwarden"},
			"Imapwarden-Id":        {strconv.FormatInt(e.ID, 10)},
			"Imapwarden-Signature": {h.Key.sign(time.Now(), body)},
		},
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
	}).WithContext(ctx)
	response, err := h.client().Do(request)
	if err != nil {
		return Answer{}, fmt.Errorf("audit: posting an alert: %w", withoutURL(err))
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer)) // the status has said it all
	return Answer{response.StatusCode, string(text[:min(len(text), maxAnswerText)])}, nil
}

// body is the event's JSON, and who we are.
func (h *Webhook) body(e Event) ([]byte, error) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(struct {
		Event
		Hostname string `json:"imapwarden"`
	}{e, h.Hostname})
	if err != nil {
		return nil, fmt.Errorf("audit: writing event %d as JSON: %w", e.ID, err)
	}
	return bytes.TrimSuffix(body.Bytes(), []byte("\n")), nil
}

// client follows no redirect: the alert is for the one whom the configuration names. Alerts
// are rare, so no connection is kept for the next one.
func (h *Webhook) client() *http.Client {
	network := &http.Transport{Proxy: proxy, DisableKeepAlives: true, MaxResponseHeaderBytes: maxAnswer}
	return &http.Client{
		Transport:     cmp.Or[http.RoundTripper](h.Transport, network),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// proxy is the environment's. A bad setting may hold a password, and stands in the error.
func proxy(r *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(r)
	if err != nil {
		return nil, errors.New("the proxy that the environment names (HTTPS_PROXY) isn't a URL")
	}
	return u, nil
}

// sign returns the value of Imapwarden-Signature.
func (k WebhookKey) sign(at time.Time, body []byte) string {
	seconds := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, k)
	mac.Write([]byte(seconds + "."))
	mac.Write(body)
	return fmt.Sprintf("t=%s,v1=%x", seconds, mac.Sum(nil))
}

// receiver reads the URL. What it holds is in no error: a token is a part of many.
func receiver(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, errors.New("audit: the webhook isn't a URL as in https://example.org/alerts")
	case u.User != nil:
		return nil, errors.New("audit: the webhook's URL has a user name or password in it: leave it out, the signature shows who we are")
	case u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())):
		return nil, errors.New("audit: the webhook's URL must begin with https://; http:// is for this machine's own addresses only")
	}
	return u, nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

// withoutURL takes off what the HTTP client puts before its errors.
func withoutURL(err error) error {
	if outer, ok := errors.AsType[*url.Error](err); ok {
		return outer.Err
	}
	return err
}

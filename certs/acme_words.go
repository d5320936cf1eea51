package certs

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// longestComeBack bounds how long the authority can put us off.
const longestComeBack = 7 * 24 * time.Hour

// explainACME says what came of asking the authority, and what to do about it.
func explainACME(err error, name string, challenge Challenge) error {
	problem, isProblem := errors.AsType[acme.Problem](err)
	if !isProblem {
		// acmez drops what it wraps in places, and keeps these words.
		if _, ok := errors.AsType[*url.Error](err); ok || strings.Contains(err.Error(), ": performing request: ") {
			return fmt.Errorf("the CA can't be reached: %w", err)
		}
		return err
	}
	said := strings.TrimSpace(problem.Detail)
	for _, sub := range problem.Subproblems {
		said += "; " + sub.Detail
	}
	switch strings.TrimPrefix(problem.Type, acme.ProblemTypeNamespace) {
	case "rateLimited":
		return fmt.Errorf("the CA has had too many requests from us or for this name, and asks to wait: %s", said)
	case "connection", "unauthorized", "incorrectResponse", "tls", "dns", "caa":
		return fmt.Errorf("the CA couldn't convince itself that %s is ours: %s: %s", name, said, howToPass(challenge))
	case "externalAccountRequired":
		return fmt.Errorf("the CA wants an account bound to one of its customers: fill in tls.acme.eab: %s", said)
	case "rejectedIdentifier":
		return fmt.Errorf("the CA gives no certificate for %s: %s", name, said)
	}
	if problem.Status >= http.StatusInternalServerError {
		return fmt.Errorf("the CA has trouble of its own (HTTP %d): %s", problem.Status, said)
	}
	return fmt.Errorf("the CA refuses (HTTP %d, %s): %s", problem.Status, strings.TrimPrefix(problem.Type, acme.ProblemTypeNamespace), said)
}

func howToPass(challenge Challenge) string {
	switch challenge {
	case HTTP01:
		return "port 80 of that name must lead here"
	case DNS01:
		return "its TXT record _acme-challenge must be seen from outside"
	}
	return "port 443 of that name must lead here, with nothing between that ends TLS"
}

// heard is when the authority asked to be left alone until. acmez tells that
// (Retry-After: RFC 8555, section 6.6) nobody but its log, so that is where we listen.
type heard struct {
	mu    sync.Mutex
	until time.Time
}

func (h *heard) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.until = time.Time{}
}

func (h *heard) comeBack() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.until
}

func (h *heard) answer(status int, header http.Header, now time.Time) {
	if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if until := retryAfter(header.Get("Retry-After"), now); until.After(h.until) {
		h.until = until
	}
}

// retryAfter reads the field's value: seconds, or a date (RFC 9110, section 10.2.3). The zero
// time is none.
func retryAfter(value string, now time.Time) (until time.Time) {
	if seconds, err := strconv.Atoi(value); err == nil && seconds >= 0 {
		until = now.Add(min(time.Duration(min(seconds, int(longestComeBack/time.Second)))*time.Second, longestComeBack))
	} else if date, err := http.ParseTime(value); err == nil {
		until = date
	}
	if longest := now.Add(longestComeBack); until.After(longest) {
		return longest
	}
	return until
}

// logger returns the log for certmagic and acmez. All that they have to say is details: what
// a person has to know, we say ourselves, once.
func (h *heard) logger(log *zap.Logger) *zap.Logger {
	return zap.New(listener{log.Named("acme").Core(), h})
}

// A listener is a zapcore.Core.
type listener struct {
	zapcore.Core
	heard *heard
}

func (l listener) Enabled(zapcore.Level) bool { return true }

func (l listener) With(fields []zapcore.Field) zapcore.Core {
	return listener{l.Core.With(fields), l.heard}
}

func (l listener) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return checked.AddCore(e, l)
}

func (l listener) Write(e zapcore.Entry, fields []zapcore.Field) error {
	status, header := 0, http.Header(nil)
	for _, f := range fields {
		switch f.Key {
		case "status_code":
			status = int(f.Integer)
		case "response_headers":
			header, _ = f.Interface.(http.Header)
		}
	}
	l.heard.answer(status, header, time.Now())
	e.Level = zapcore.DebugLevel
	if !l.Core.Enabled(e.Level) {
		return nil
	}
	return l.Core.Write(e, fields)
}

package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"imapwarden/audit"
	"imapwarden/auth"
)

// The bounds of one request and one answer.
const (
	maxRequest = 64 << 10
	maxPage    = 1000    // accounts in one answer
	maxEvents  = 100_000 // events in one answer
)

// Server answers administrators.
type Server struct {
	Directory *auth.Directory
	Audit     audit.Sink // takes an event for each change
	Events    Events
	Log       *zap.Logger
}

// Events is where the audit can be read.
type Events interface {
	// Events returns the events that the filter chooses, oldest first.
	Events(ctx context.Context, f audit.Filter) ([]audit.Event, error)
}

// Serve answers on l until ctx is done, then lets requests in flight end for
// five seconds, and returns nil. It closes l, which Listen made.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s.handler(),
		ConnContext:       withPeer,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          zap.NewStdLog(s.Log),
	}
	ctx, cancel := context.WithCancel(ctx)
	down := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		down <- server.Shutdown(grace)
	}()
	err := server.Serve(l)
	cancel()
	shutdown := <-down
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: serving: %w", err)
	}
	if shutdown != nil {
		return fmt.Errorf("admin: ending: %w", shutdown)
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /account/list", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return d.List(ctx, q.After, min(q.Limit, maxPage))
	}))
	mux.HandleFunc("POST /account/show", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return d.Show(ctx, q.Account)
	}))
	mux.HandleFunc("POST /account/enroll", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return d.Enroll(ctx, q.Account, q.Confirmed)
	}))
	mux.HandleFunc("POST /account/confirm", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return nil, d.Confirm(ctx, q.Account, q.Code)
	}))
	mux.HandleFunc("POST /account/reset", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return nil, d.Reset(ctx, q.Account)
	}))
	mux.HandleFunc("POST /account/remove", s.answer(func(ctx context.Context, d *auth.Directory, q request) (any, error) {
		return nil, d.Remove(ctx, q.Account)
	}))
	mux.HandleFunc("POST /events", s.answer(func(ctx context.Context, _ *auth.Directory, q request) (any, error) {
		q.Events.Limit = min(q.Events.Limit, maxEvents)
		return s.Events.Events(ctx, q.Events)
	}))
	return mux
}

// A request is the body of every request; each path reads its own fields.
type request struct {
	Account   string       `json:"account,omitempty"`
	Code      string       `json:"code,omitempty"`
	Confirmed bool         `json:"confirmed,omitempty"`
	After     string       `json:"after,omitempty"` // list: names after this one
	Limit     int          `json:"limit,omitempty"`
	Events    audit.Filter `json:"events,omitzero"`
}

// A problem is the body of every answer that is no success. Where Refused is
// set, the answer is an expected no; without it, we could not tell.
type problem struct {
	Refused auth.Reason `json:"refused,omitempty"`
	Message string      `json:"message"`
}

// answer makes a handler of what one path does: who asks, what they ask, and
// how it ended, which is a success, a refusal or a failure.
func (s *Server) answer(do func(context.Context, *auth.Directory, request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		uid, ok := entitled(r.Context())
		if !ok {
			write(w, http.StatusForbidden, problem{Message: "admin: only root and the server's own user may administer"})
			return
		}
		var q request
		body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
		body.DisallowUnknownFields()
		if err := body.Decode(&q); err != nil {
			// The error may quote the body, and so a code.
			write(w, http.StatusBadRequest, problem{Message: "admin: the request can't be read: are command and server of the same version?"})
			return
		}
		var lost error
		directory := Signed(s.Directory, s.Audit, fmt.Sprintf("uid %d by admin socket", uid), func(err error) { lost = err })
		a, err := do(r.Context(), directory, q)
		if err == nil {
			err = lost
		}
		refusal, refused := errors.AsType[*auth.Refusal](err)
		switch {
		case refused:
			write(w, http.StatusConflict, problem{Refused: refusal.Reason, Message: refusal.Message})
		case err != nil:
			s.Log.Error("an administrator's request failed", zap.String("path", r.URL.Path), zap.Uint32("uid", uid), zap.Error(err))
			write(w, http.StatusInternalServerError, problem{Message: err.Error()})
		default:
			write(w, http.StatusOK, a)
		}
	}
}

// write sends a body. A client that is gone by now has no use for the error.
func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

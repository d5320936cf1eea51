package proxy

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"imapwarden/auth"
)

func authMode(s string) auth.Mode { return auth.Mode(s) }

// hang is an upstream that takes the connection and says nothing.
func hang(conn net.Conn) { io.Copy(io.Discard, conn) }

// after is a context that ends then.
func after(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

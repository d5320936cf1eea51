package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"imapwarden/auth"
)

func authMode(s string) auth.Mode { return auth.Mode(s) }

// neverRight returns digits that weren't the account's code within the last day.
func neverRight(r *rig, secret string) string {
	r.t.Helper()
	right := map[string]bool{}
	for step := range 2 * 24 * 120 {
		code, err := totp.GenerateCode(secret, time.Now().Add(time.Hour-time.Duration(step)*30*time.Second))
		if err != nil {
			r.t.Fatal(err)
		}
		right[code] = true
	}
	for n := 0; ; n++ {
		if code := fmt.Sprintf("%06d", n); !right[code] {
			return code
		}
	}
}

// hang is an upstream that takes the connection and says nothing.
func hang(conn net.Conn) { io.Copy(io.Discard, conn) }

// after is a context that ends then.
func after(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen opens the admin socket at path with mode 0600, and makes its folder
// with mode 0700 where there is none. A socket that a dead server left behind is
// replaced; one that is answered, and a file that is no socket, are not.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("admin: making the folder of the socket: %w", err)
	}
	if err := clear(path); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("admin: opening the socket: %w", err)
	}
	// Whoever connects before this is still asked for a uid by entitled.
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("admin: protecting the socket: %w", err)
	}
	return listener, nil
}

// clear removes the socket of a server that has ended.
func clear(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("admin: looking for an older socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("admin: %s exists and is no socket: move it away, or name another path in admin.socket", path)
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("admin: another server answers at %s: end that one first, or name another path in admin.socket", path)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("admin: asking who answers at the socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("admin: removing the socket of a server that has ended: %w", err)
	}
	return nil
}

type peerKey struct{}

// withPeer notes the uid of the process at the other end, as the kernel knows it.
// Where it can't be told there is none, and the request is refused.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return ctx
	}
	var peer *unix.Ucred
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		peer, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || sockErr != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer.Uid)
}

// entitled returns the peer's uid where it may administer: root, and our own user.
func entitled(ctx context.Context) (uid uint32, ok bool) {
	uid, ok = ctx.Value(peerKey{}).(uint32)
	return uid, ok && (uid == 0 || int(uid) == os.Getuid())
}

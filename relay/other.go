//go:build !linux

package relay

import "errors"

// There is no epoll here: a goroutine waits for each side.
type epoll struct{}

func (e *Engine) open() {
	if e.Degraded != nil {
		e.Degraded(errors.New("relay: there is no epoll on this system"))
	}
}

// Close ends the engine, after its last session.
func (e *Engine) Close() {}

func (*epoll) adopt(*Session) error { return nil }
func (*epoll) forget(int32)         {}
func (*Socket) detachable() bool    { return false }

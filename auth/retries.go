package auth

import (
	"sync"
	"time"
)

const (
	retryEvery = time.Hour
	maxRetries = 10_000 // app passwords
)

// retries says when the upstream may be asked once more with a password from the vault that it has
// refused: some upstreams refuse right passwords for a while, after somebody else's guesses
// (pam_faillock), and no device must be shut out for that until its owner comes by.
type retries struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// due says whether it is time, and begins the next wait if so.
func (r *retries) due(id string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.last[id]; ok && now.Sub(last) < retryEvery {
		return false
	}
	if r.last == nil || len(r.last) >= maxRetries {
		r.last = make(map[string]time.Time)
	}
	r.last[id] = now
	return true
}

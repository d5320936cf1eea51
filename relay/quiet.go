package relay

import (
	"runtime/debug"
	"sync/atomic"
)

// quiet gives memory back to the system when a rush is over. The runtime would keep about as much
// again as is in use, until its next collection, which in quiet times is far off: for thousands of
// idle sessions that is most of what they take.
type quiet struct {
	sessions atomic.Int64
	turns    atomic.Int64 // of pumps, since the last look
	since    int64        // and until then, since memory was given back
}

// fewTurns in a look are always quiet.
const fewTurns = 10

// look gives memory back where there was work that could have used it, and it is over. It is called
// once a second.
func (q *quiet) look() {
	turns, sessions := q.turns.Swap(0), q.sessions.Load()
	q.since += turns
	if turns > max(fewTurns, sessions/100) || q.since <= max(fewTurns, sessions/4) {
		return
	}
	q.since = 0
	debug.FreeOSMemory()
}

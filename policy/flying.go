package policy

// flying counts attempts in flight, so that parallel ones can't pass a limit that
// none of them has reached yet. It is guarded by the lock of its entry.
type flying struct {
	count int
	left  chan struct{} // closed when one ends; nil when nobody waits
}

// enter counts an allowed attempt. Where only attempts in flight refuse it, it
// returns a channel that is closed when one of them ends.
func (f *flying) enter(d Decision) <-chan struct{} {
	switch {
	case d.Allowed:
		f.count++
		return nil
	case !d.busy:
		return nil
	case f.left == nil:
		f.left = make(chan struct{})
	}
	return f.left
}

func (f *flying) leave() {
	f.count--
	f.wake()
}

// wake has those that wait look again.
func (f *flying) wake() {
	if f.left != nil {
		close(f.left)
		f.left = nil
	}
}

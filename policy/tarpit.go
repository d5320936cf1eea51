package policy

import (
	"sync/atomic"
	"time"
)

// A tarpit keeps attempts waiting whose source has failed before, a bounded number at once.
type tarpit struct{ places atomic.Int32 }

// tarpitFacts is what a decision needs to know of it.
type tarpitFacts struct {
	row  int  // attempts of the source that failed one after the other
	busy bool // one of its attempts is in flight or kept waiting
}

// judgeTarpit lets a source that failed twice in a row have one attempt at a time.
func judgeTarpit(f tarpitFacts) Decision {
	if f.row > 1 && f.busy {
		return refuseBusy(TarpitBusy)
	}
	return Decision{Allowed: true}
}

// lasts is how long the refusal of an attempt takes after which so many have failed in a row.
func (l *Limits) lasts(row int, alarmed bool) time.Duration {
	if alarmed {
		row++
	}
	return l.Tarpit[min(max(row, 1), len(l.Tarpit))-1]
}

// enter takes a place, where there is one.
func (p *tarpit) enter(most int) bool {
	if int(p.places.Add(1)) > most {
		p.places.Add(-1)
		return false
	}
	return true
}

func (p *tarpit) leave() { p.places.Add(-1) }

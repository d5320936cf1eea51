package main

import "time"

// A queue gives back what was put into it when its time has come, in the order of time, and at one
// time in the order in which it came. Its zero value is empty.
type queue[T any] struct {
	items []queued[T] // a heap
	count int
}

type queued[T any] struct {
	at     time.Duration
	number int
	item   T
}

func (a queued[T]) before(b queued[T]) bool {
	return a.at < b.at || a.at == b.at && a.number < b.number
}

func (q *queue[T]) add(at time.Duration, item T) {
	q.count++
	q.items = append(q.items, queued[T]{at, q.count, item})
	for i := len(q.items) - 1; i > 0; {
		above := (i - 1) / 2
		if !q.items[i].before(q.items[above]) {
			return
		}
		q.items[i], q.items[above] = q.items[above], q.items[i]
		i = above
	}
}

// next is when the first is due; never where there is none.
func (q *queue[T]) next() time.Duration {
	if len(q.items) == 0 {
		return never
	}
	return q.items[0].at
}

// due takes the first out, where its time has come.
func (q *queue[T]) due(now time.Duration) (item T, ok bool) {
	if q.next() > now || len(q.items) == 0 {
		return item, false
	}
	item = q.items[0].item
	last := len(q.items) - 1
	q.items[0] = q.items[last]
	q.items[last] = queued[T]{}
	q.items = q.items[:last]
	for i := 0; ; {
		first := i
		for _, below := range []int{2*i + 1, 2*i + 2} {
			if below < last && q.items[below].before(q.items[first]) {
				first = below
			}
		}
		if first == i {
			return item, true
		}
		q.items[i], q.items[first] = q.items[first], q.items[i]
		i = first
	}
}

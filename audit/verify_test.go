package audit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func verify(t *testing.T, s *fakeStore) Report {
	t.Helper()
	r, err := Verify(t.Context(), s, nil)
	must(t, err)
	return r
}

// broken checks that a report names the event that is wrong first, and says part of it.
func broken(t *testing.T, r Report, id int64, part string) {
	t.Helper()
	if r.Broken == nil || r.Broken.ID != id || !strings.Contains(r.Broken.Problem, part) {
		t.Errorf("reported %+v, want event %d and %q", r.Broken, id, part)
	}
	if r.Last > id && id > 0 {
		t.Errorf("verified up to event %d, although event %d is wrong", r.Last, id)
	}
}

func TestVerify(t *testing.T) {
	s := newFakeStore()
	if r := verify(t, s); r != (Report{}) {
		t.Errorf("an empty store: %+v", r)
	}
	s.add(2500)
	s.purge(10)
	var told []int64
	r, err := Verify(t.Context(), s, func(e Event) error { told = append(told, e.ID); return nil })
	must(t, err)
	want := Report{Events: 2490, First: 11, Last: 2500, Head: s.head, HeadTime: s.events[2489].Time}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}
	if len(told) != 2490 || told[0] != 11 || told[2489] != 2500 {
		t.Errorf("told of %d events", len(told))
	}
	s.purge(2490)
	if r := verify(t, s); r != (Report{}) {
		t.Errorf("all purged: %+v", r)
	}
	s.add(1)
	if r := verify(t, s); r.Events != 1 || r.Broken != nil {
		t.Errorf("one after all were purged: %+v", r)
	}
}

func TestVerifyUnchained(t *testing.T) {
	old := func() *fakeStore { // of 6 events, 3 are from before there was a chain
		s := newFakeStore()
		for range 3 {
			s.add(1)
			s.head, s.events[len(s.events)-1].Hash = Hash{}, Hash{}
		}
		s.add(3)
		return s
	}
	if r := verify(t, old()); r.Broken != nil || r.Events != 6 || r.Unchained != 3 {
		t.Errorf("reported %+v", r)
	}
	s := old()
	s.purge(2)
	if r := verify(t, s); r.Broken != nil || r.Events != 4 || r.Unchained != 1 {
		t.Errorf("reported %+v after a purge", r)
	}
	s = old()
	s.events[4].Hash = Hash{}
	broken(t, verify(t, s), 5, "has no hash")
	s = old()
	s.purge(4)
	s.events[0].Hash = Hash{}
	broken(t, verify(t, s), 5, "has no hash")
}

// tampering is every way to change one event.
var tampering = map[string]func(e *Event){
	"time":    func(e *Event) { e.Time = e.Time.Add(time.Microsecond) },
	"kind":    func(e *Event) { e.Kind = "logout" },
	"outcome": func(e *Event) { e.Outcome = Accepted },
	"session": func(e *Event) { e.Session += "x" },
	"account": func(e *Event) { e.Account = "bob" },
	"source":  func(e *Event) { e.Source = "192.0.2.2" },
	"program": func(e *Event) { e.Program = "" },
	"factor":  func(e *Event) { e.Factor = "code" },
	"reason":  func(e *Event) { e.Reason = "" },
	"rule":    func(e *Event) { e.Rule = "" },
	"detail":  func(e *Event) { e.Detail = "another" },
	"hash":    func(e *Event) { e.Hash[31]++ },
	"borders": func(e *Event) { e.Factor, e.Reason = e.Factor+e.Reason, "" },
}

func TestVerifyTampering(t *testing.T) {
	for name, change := range tampering {
		t.Run(name, func(t *testing.T) {
			for _, i := range []int{0, 3, 9} {
				s := newFakeStore()
				s.add(10)
				change(&s.events[i])
				broken(t, verify(t, s), int64(i+1), "was changed")
			}
		})
	}
	for name, test := range map[string]struct {
		change func(s *fakeStore)
		id     int64
	}{
		"one removed":     {func(s *fakeStore) { s.events = append(s.events[:4:4], s.events[5:]...) }, 6},
		"the first ones":  {func(s *fakeStore) { s.events = s.events[2:] }, 3},
		"as if purged":    {func(s *fakeStore) { s.purge(2); s.events = s.events[1:] }, 4},
		"two exchanged":   {func(s *fakeStore) { e := s.events; e[4], e[5] = e[5], e[4]; e[4].ID, e[5].ID = 5, 6 }, 5},
		"one twice":       {func(s *fakeStore) { e := s.events; e[4] = e[3]; e[4].ID = 5 }, 5},
		"a false mark":    {func(s *fakeStore) { s.purge(2); s.marks[ChainMark] = FormatMark(2, Hash{1}) }, 3},
		"no mark":         {func(s *fakeStore) { s.purge(2); s.marks[ChainMark] = "" }, 3},
		"below the first": {func(s *fakeStore) { s.events = slices.Insert(s.events, 0, Event{ID: -7, Hash: s.events[3].Hash}) }, -7},
		"of ID 0":         {func(s *fakeStore) { s.events = slices.Insert(s.events, 0, Event{}) }, 0},
		"purged, but not": {func(s *fakeStore) { s.marks[ChainMark] = FormatMark(2, s.events[1].Hash) }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeStore()
			s.add(10)
			test.change(s)
			part := "was changed"
			if test.id < 1 {
				part = "no store gives such an ID"
			}
			broken(t, verify(t, s), test.id, part)
		})
	}
}

func TestVerifyWhilePurging(t *testing.T) {
	for name, test := range map[string]struct {
		calls, times, events int // calls of Events before the first purge; purges, one before each further call; events of each
		fails                bool
	}{
		"before the first page": {0, 1, 500, false},
		"ahead of the walk":     {1, 1, 1500, false},
		"all ahead of it":       {1, 1, 3500, false},
		"a few times":           {0, 4, 500, false},
		"again and again":       {0, 1000, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newFakeStore()
				s.add(3500)
				calls, purges := 0, 0
				s.asked = func(context.Context) {
					if calls++; calls > test.calls && purges < test.times {
						purges++
						s.purge(test.events)
					}
				}
				told := make(map[int64]int)
				r, err := Verify(t.Context(), s, func(e Event) error { told[e.ID]++; return nil })
				if test.fails {
					if err == nil || !strings.Contains(err.Error(), "try again") {
						t.Errorf("verified %+v, %v", r, err)
					}
					return
				}
				must(t, err)
				if r.Broken != nil || r.Last != 3500 && r.Last != 1000 {
					t.Errorf("reported %+v, %v", r, r.Broken)
				}
				for id, n := range told {
					if n != 1 {
						t.Errorf("told of event %d %d times", id, n)
					}
				}
			})
		})
	}
}

// A purge doesn't hide a break, and nobody is told of an event twice.
func TestVerifyBrokenWhilePurging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFakeStore()
		s.add(1600)
		s.events[1499].Account = "bob"
		s.then(func() { s.purge(500) })
		told := 0
		r, err := Verify(t.Context(), s, func(Event) error { told++; return nil })
		must(t, err)
		broken(t, r, 1500, "was changed")
		if r.First != 501 || told != 1499 {
			t.Errorf("verified from event %d, told of %d events", r.First, told)
		}
	})
}

// A failure to tell is an error, and no report of a break.
func TestVerifyFails(t *testing.T) {
	for name, test := range map[string]func(s *fakeStore){
		"store":     func(s *fakeStore) { s.failed = errDisk },
		"mark":      func(s *fakeStore) { s.marks[ChainMark] = "17" },
		"same page": func(s *fakeStore) { s.events[1].ID = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeStore()
			s.add(3)
			test(s)
			if r, err := Verify(t.Context(), s, nil); err == nil || r.Broken != nil {
				t.Errorf("reported %+v, %v", r, err)
			}
		})
	}
	s := newFakeStore()
	s.add(3)
	if r, err := Verify(t.Context(), s, func(Event) error { return errDisk }); !errors.Is(err, errDisk) || r.Events != 1 {
		t.Errorf("each failed: reported %+v, %v", r, err)
	}
}

// file returns what an Exporter writes of the store.
func (s *fakeStore) file(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	var text []byte
	synctest.Test(t, func(t *testing.T) {
		exporting(t, s, path).stop()
		var err error
		text, err = os.ReadFile(path)
		must(t, err)
	})
	return string(text)
}

func TestVerifyFile(t *testing.T) {
	s := newFakeStore()
	s.add(1200)
	text := s.file(t)
	lines := strings.SplitAfter(text, "\n")
	for name, test := range map[string]struct {
		text         string
		purged       int
		events, last int64
	}{
		"whole":                 {text, 0, 1200, 1200},
		"nothing":               {"", 0, 0, 0},
		"half a line":           {text + `{"id":12`, 0, 1200, 1200},
		"a rotated one":         {strings.Join(lines[:600], ""), 0, 600, 600},
		"the one after it":      {strings.Join(lines[600:], ""), 0, 600, 1200},
		"the first ones purged": {text, 1050, 1200, 1200},
		"all but one purged":    {text, 1199, 1200, 1200},
		"all purged":            {text, 1200, 1200, 1200},
		"an old one, purged":    {strings.Join(lines[:600], ""), 600, 600, 600},
	} {
		t.Run(name, func(t *testing.T) {
			for at := range 3 { // calls of Events before the purge
				s, calls := newFakeStore(), 0
				s.add(1200)
				s.asked = func(context.Context) {
					if calls++; calls > at && test.purged > 0 && len(s.events) == 1200 {
						s.purge(test.purged)
					}
				}
				if at == 0 && test.purged > 0 {
					s.purge(test.purged)
				}
				r, err := VerifyFile(t.Context(), strings.NewReader(test.text), s)
				must(t, err)
				if r.Broken != nil || r.Events != test.events || r.Last != test.last {
					t.Errorf("purged after %d calls: reported %+v, %+v", at, r, r.Broken)
				}
			}
		})
	}
}

// What Verify can't see: the store's owner computed the chain anew.
func TestVerifyFileAgainstAnOwner(t *testing.T) {
	for name, test := range map[string]struct {
		change func(s *fakeStore)
		id     int64
		part   string
	}{
		"its end is cut off": {func(s *fakeStore) { s.events = s.events[:8] }, 9, "the store ends before"},
		"all is gone":        {func(s *fakeStore) { s.events = nil }, 1, "the store ends before"},
		"one was removed":    {func(s *fakeStore) { s.events = append(s.events[:4:4], s.events[5:]...); s.rechain() }, 5, "it was removed"},
		"one was changed":    {func(s *fakeStore) { s.events[4].Reason = "x"; s.rechain() }, 5, "isn't the same"},
		"one was inserted":   {func(s *fakeStore) { e := s.events; e[4].ID = 6; s.events = e[:6]; s.rechain() }, 5, "it was removed"},
		"cut off and more":   {func(s *fakeStore) { s.events = s.events[:8]; s.rechain(); s.detail = "x"; s.add(5) }, 9, "it was removed"},
		"purged, with another hash": {func(s *fakeStore) {
			s.purge(5)
			s.marks[ChainMark] = FormatMark(5, Hash{1})
		}, 5, "purged from the store with another hash"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeStore()
			s.add(10)
			text := s.file(t)
			test.change(s)
			r, err := VerifyFile(t.Context(), strings.NewReader(text), s)
			must(t, err)
			broken(t, r, test.id, test.part)
		})
	}
}

func TestVerifyFileTampering(t *testing.T) {
	s := newFakeStore()
	s.detail = "why"
	s.add(10)
	lines := strings.SplitAfter(strings.TrimSuffix(s.file(t), "\n"), "\n")
	edit := func(old, new string) func([]string) {
		return func(lines []string) {
			edited := strings.Replace(lines[4], old, new, 1)
			if edited == lines[4] {
				t.Errorf("there is no %s in %s", old, lines[4])
			}
			lines[4] = edited
		}
	}
	for name, test := range map[string]struct {
		change func(lines []string)
		id     int64
		line   int64
		part   string
	}{
		"removed":             {func(l []string) { l[4] = "" }, 6, 5, "was changed, or one before it"},
		"twice":               {func(l []string) { l[4] += l[4] }, 5, 6, "stands behind event 5"},
		"exchanged":           {func(l []string) { l[4], l[5] = l[5], l[4] }, 6, 5, "was changed, or one before it"},
		"no JSON":             {func(l []string) { l[4] = "Nov 22\n" }, 0, 5, "no event"},
		"empty line":          {func(l []string) { l[4] += "\n" }, 0, 6, "no event"},
		"too long":            {func(l []string) { l[4] = strings.Repeat("x", 2*maxLine) + "\n" }, 0, 5, "no event"},
		"a field twice":       {edit(`"kind":`, `"kind":"other","kind":`), 0, 5, "no event"},
		"a field more":        {edit(`"kind":`, `"sort":"x","kind":`), 0, 5, "no event"},
		"spelled otherwise":   {edit(`login`, `\u006cogin`), 0, 5, "no event"},
		"ID":                  {edit(`"id":5`, `"id":4`), 4, 5, "stands behind event 4"},
		"first, all the same": {func(l []string) { l[0] = strings.Replace(l[0], "alice", "bob", 1) }, 1, 1, "isn't the same"},
		"hash removed":        {edit(`,"hash":"`+s.events[4].hashText()+`"`, ``), 5, 5, "has no hash"},
		"time":                {edit(`00005Z`, `00006Z`), 5, 5, "was changed"},
		"kind":                {edit(`"login"`, `"logout"`), 5, 5, "was changed"},
		"outcome":             {edit(`"refused"`, `"accepted"`), 5, 5, "was changed"},
		"session":             {edit(`"s5"`, `"s6"`), 5, 5, "was changed"},
		"account":             {edit(`"alice"`, `"bob"`), 5, 5, "was changed"},
		"source":              {edit(`192.0.2.1`, `192.0.2.2`), 5, 5, "was changed"},
		"program":             {edit(`Mail`, `Post`), 5, 5, "was changed"},
		"factor":              {edit(`"none"`, `"code"`), 5, 5, "was changed"},
		"reason":              {edit(`wrong-code`, `expired`), 5, 5, "was changed"},
		"rule":                {edit(`"rule":"r"`, `"rule":"s"`), 5, 5, "was changed"},
		"detail":              {edit(`"why"`, `"because"`), 5, 5, "was changed"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := append([]string(nil), lines...)
			test.change(changed)
			r, err := VerifyFile(t.Context(), strings.NewReader(strings.Join(changed, "")), s)
			must(t, err)
			broken(t, r, test.id, test.part)
			if r.Broken != nil && r.Broken.Line != test.line {
				t.Errorf("line %d, want %d", r.Broken.Line, test.line)
			}
		})
	}
	if r, err := VerifyFile(t.Context(), strings.NewReader(strings.Join(lines, "")), failing(errDisk)); !errors.Is(err, errDisk) || r.Broken != nil {
		t.Errorf("the store fails: reported %+v, %v", r, err)
	}
}

func (e Event) hashText() string {
	text, _ := e.Hash.MarshalText()
	return string(text)
}

func failing(err error) *fakeStore {
	s := newFakeStore()
	s.failed = err
	return s
}

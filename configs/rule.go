package configs

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Rule says what goes for the attempts that all its matchers fit; the first rule
// that fits counts. A matcher that isn't given fits everything.
type Rule struct {
	Name         string         `toml:"name"`     // see Title
	Accounts     []string       `toml:"accounts"` // patterns in lower case; a * stands for any text, also none
	Networks     []netip.Prefix `toml:"networks"`
	NetworkFiles []string       `toml:"network_files"` // more networks, one a line
	Countries    []string       `toml:"countries"`     // ISO 3166-1 alpha-2, such as "DE"
	Owners       []uint32       `toml:"owners"`        // autonomous system numbers of the networks' owners
	TLS          []string       `toml:"tls"`           // versions, "1.2" or "1.3"
	Programs     []string       `toml:"programs"`      // patterns in lower case of what mail programs say that they are
	Since        Moment         `toml:"since"`
	Until        Moment         `toml:"until"`    // itself too late
	Weekdays     []Weekday      `toml:"weekdays"` // those on which Hours begin
	Hours        Hours          `toml:"hours"`
	Zone         Zone           `toml:"zone"`          // of all four
	Action       string         `toml:"action"`        // "allow" or "deny"
	SecondFactor string         `toml:"second_factor"` // as MFA.Mode, in place of it; "" leaves that
	ReadOnly     bool           `toml:"read_only"`
	MaxSessions  int            `toml:"max_sessions"` // of one account; 0 leaves Limits
}

// Title is what the rule is called in records: its name, or for want of one its place
// among the rules: i counts from 0, and "rule 1" is the first.
func (r Rule) Title(i int) string {
	if r.Name != "" {
		return r.Name
	}
	return fmt.Sprintf("rule %d", i+1)
}

// Period returns Since and Until as moments of the rule's zone. The zero time is that
// of a key that isn't given.
func (r Rule) Period() (since, until time.Time) {
	return r.Since.In(r.Zone.Location()), r.Until.In(r.Zone.Location())
}

// Days returns the weekdays as the standard library's type; none stand for all.
func (r Rule) Days() []time.Weekday {
	var days []time.Weekday
	for _, d := range r.Weekdays {
		days = append(days, time.Weekday(d))
	}
	return days
}

// A Weekday is a time.Weekday that is written like "mon".
type Weekday time.Weekday

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// String is what files say.
func (d Weekday) String() string {
	if d < 0 || int(d) >= len(weekdays) {
		return time.Weekday(d).String() // never from a file; for logs only
	}
	return weekdays[d]
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Weekday) UnmarshalText(text []byte) error {
	i := slices.Index(weekdays, strings.ToLower(string(text)))
	if i < 0 {
		return fmt.Errorf("configs: reading weekday %q: must be one of %s", text, strings.Join(weekdays, ", "))
	}
	*d = Weekday(i)
	return nil
}

// Hours are a part of the day, as clocks on the wall show it: since midnight, From
// itself included, To not. Where To is before From, they go over midnight. The
// zero value is the whole day.
type Hours struct{ From, To time.Duration }

// String writes them like "08:00-18:00", and "" for the zero value.
func (h Hours) String() string {
	if h == (Hours{}) {
		return ""
	}
	clock := func(d time.Duration) string { return fmt.Sprintf("%02d:%02d", d/time.Hour, d%time.Hour/time.Minute) }
	return clock(h.From) + "-" + clock(h.To)
}

// UnmarshalText implements encoding.TextUnmarshaler. It takes what String writes.
// 24:00 is the midnight at which a day ends.
func (h *Hours) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*h = Hours{}
		return nil
	}
	begin, end, _ := strings.Cut(string(text), "-")
	from, fromErr := timeOfDay(begin)
	to, toErr := timeOfDay(end)
	if err := errors.Join(fromErr, toErr); err != nil || from == to || from == day {
		return fmt.Errorf("configs: reading hours %q: must be like \"08:00-18:00\"", text)
	}
	*h = Hours{from, to}
	return nil
}

// timeOfDay reads "00:00" to "24:00".
func timeOfDay(s string) (time.Duration, error) {
	hour, minute, _ := strings.Cut(s, ":")
	h, hourErr := strconv.ParseUint(hour, 10, 8)
	m, minuteErr := strconv.ParseUint(minute, 10, 8)
	d := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
	if hourErr != nil || minuteErr != nil || len(s) != len("00:00") || len(minute) != 2 || m > 59 || d > day {
		return 0, fmt.Errorf("configs: reading time of day %q", s)
	}
	return d, nil
}

// A Moment is a day, where it begins, or a time of a day. The zero value is none.
type Moment struct {
	at    time.Time
	zoned bool // it says its zone; else at is in UTC and only its clock counts
}

// In returns the moment; one that doesn't say its zone is one of the given zone. The
// zero Moment is the zero time.
func (m Moment) In(zone *time.Location) time.Time {
	if m == (Moment{}) || m.zoned {
		return m.at
	}
	return time.Date(m.at.Year(), m.at.Month(), m.at.Day(), m.at.Hour(), m.at.Minute(), 0, 0, zone)
}

// String writes it like "2026-12-01 08:00", or as RFC 3339 has it where it says its
// zone, and "" for the zero value.
func (m Moment) String() string {
	switch {
	case m == (Moment{}):
		return ""
	case m.zoned:
		return m.at.Format(time.RFC3339Nano)
	case m.at.Equal(m.at.Truncate(day)):
		return m.at.Format(time.DateOnly)
	default:
		return m.at.Format(minuteOnly)
	}
}

const minuteOnly = "2006-01-02 15:04"

// UnmarshalText implements encoding.TextUnmarshaler. It takes what String writes.
func (m *Moment) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*m = Moment{}
		return nil
	}
	for _, layout := range []string{time.DateOnly, minuteOnly, time.RFC3339} {
		if at, err := time.Parse(layout, string(text)); err == nil && at.Year() >= 1970 { // a year of 26 is a slip
			*m = Moment{at, layout == time.RFC3339}
			return nil
		}
	}
	return fmt.Errorf("configs: reading moment %q: must be like \"2026-12-01\", \"2026-12-01 08:00\" or \"2026-12-01T08:00:00+01:00\"", text)
}

// A Zone is a time zone by its name in the IANA database. The zero value is the machine's.
type Zone struct{ location *time.Location }

// Location returns it as the standard library's type, and never nil.
func (z Zone) Location() *time.Location {
	if z.location == nil {
		return time.Local
	}
	return z.location
}

// String is the name, and "" for the zero value.
func (z Zone) String() string {
	if z.location == nil {
		return ""
	}
	return z.location.String()
}

// UnmarshalText implements encoding.TextUnmarshaler. It fails for a zone that this
// machine's database, from the package tzdata, doesn't have.
func (z *Zone) UnmarshalText(text []byte) error {
	*z = Zone{}
	if len(text) == 0 { // to LoadLocation that is UTC
		return nil
	}
	location, err := time.LoadLocation(string(text))
	if err != nil {
		return fmt.Errorf("configs: reading time zone: %w", err)
	}
	*z = Zone{location}
	return nil
}

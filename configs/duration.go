package configs

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written like "12h", "30d" or "1d12h": d, h,
// m, s, ms, from the longest to the shortest, each at most once. It is never negative.
type Duration time.Duration

// A day is 24 hours: nothing here follows a calendar.
const day = 24 * time.Hour

type unit struct {
	name string
	size time.Duration
}

var units = []unit{{"d", day}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}}

// D returns it as the standard library's type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String writes it without the parts that are zero: "12h", "1m30s", "0s".
func (d Duration) String() string {
	if d < 0 || d.D()%time.Millisecond != 0 {
		return d.D().String() // never from a file; for logs only
	}
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	for left, u := d.D(), 0; left > 0; u++ {
		if n := left / units[u].size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, units[u].name)
			left -= n * units[u].size
		}
	}
	return b.String()
}

// MarshalText implements encoding.TextMarshaler. What no file can say is refused.
func (d Duration) MarshalText() ([]byte, error) {
	if d < 0 || d.D()%time.Millisecond != 0 {
		return nil, fmt.Errorf("configs: writing duration %s: negative, or finer than a millisecond", d.D())
	}
	return []byte(d.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

// ParseDuration reads what String writes, and other splits such as "90s".
func ParseDuration(s string) (Duration, error) {
	bad := fmt.Errorf("configs: reading duration %q: must be like \"90s\", \"12h\" or \"1d12h\" (d, h, m, s, ms)", s)
	if s == "" {
		return 0, bad
	}
	var total time.Duration
	allowed := units
	for rest := s; rest != ""; {
		afterDigits := strings.TrimLeft(rest, "0123456789")
		n, err := strconv.ParseInt(rest[:len(rest)-len(afterDigits)], 10, 64)
		if err != nil {
			return 0, bad
		}
		rest = strings.TrimLeft(afterDigits, "dhms")
		name := afterDigits[:len(afterDigits)-len(rest)]
		i := slices.IndexFunc(allowed, func(u unit) bool { return u.name == name })
		if i < 0 || n > (math.MaxInt64-int64(total))/int64(allowed[i].size) {
			return 0, bad
		}
		total += time.Duration(n) * allowed[i].size
		allowed = allowed[i+1:]
	}
	return Duration(total), nil
}

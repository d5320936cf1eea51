package configs

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30d":             30 * day,
		"12h":             12 * time.Hour,
		"1d12h":           36 * time.Hour,
		"90s":             90 * time.Second,
		"250ms":           250 * time.Millisecond,
		"1d2h3m4s5ms":     day + 2*time.Hour + 3*time.Minute + 4*time.Second + 5*time.Millisecond,
		"0s":              0,
		"9223372036854ms": 9223372036854 * time.Millisecond,
	} {
		if got, err := ParseDuration(text); err != nil || got.D() != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "5", "d", "-1h", "+1h", "1.5h", "1h ", " 1h", "1 h", "1H", "1w", "1us", "1h1d", "1h1h", "1dh",
		"9223372036855ms", "106752d", "106751d24h", "99999999999999999999s", "١h",
	} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v; want an error", text, got)
		}
	}
}

func TestDurationString(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "1m30s": 90 * time.Second, "1d12h": 36 * time.Hour, "1d": day, "1s1ms": 1001 * time.Millisecond,
	} {
		if got := Duration(d).String(); got != want {
			t.Errorf("Duration(%v).String() = %q; want %q", d, got, want)
		}
	}
	for _, d := range []time.Duration{-time.Second, time.Microsecond} {
		if text, err := Duration(d).MarshalText(); err == nil {
			t.Errorf("%v was written as %q; no file can say it", d, text)
		}
	}
}

func TestDurationRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64Range(0, 1<<63/1_000_000-1).Draw(t, "milliseconds") * int64(time.Millisecond))
		text, err := d.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Duration
		if err := back.UnmarshalText(text); err != nil || back != d {
			t.Fatalf("%d written as %q is read as %d, %v", d, text, back, err)
		}
	})
}

// What parses must print as something that parses to the same.
func FuzzDuration(f *testing.F) {
	for _, text := range []string{"1d12h", "90s", "0ms", "1h1d", "106751d23h47m16s854ms"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDuration(text)
		if err != nil {
			return
		}
		if back, err := ParseDuration(d.String()); err != nil || back != d || d < 0 {
			t.Fatalf("%q is %d, written as %q, read as %d, %v", text, d, d, back, err)
		}
	})
}

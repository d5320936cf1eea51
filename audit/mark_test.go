package audit

import (
	"math"
	"strings"
	"testing"
)

func TestMarkRoundTrip(t *testing.T) {
	for _, id := range []int64{0, 1, 4711, math.MaxInt64} {
		for _, h := range []Hash{{}, Chain(Hash{}, Event{Kind: "login"})} {
			gotID, got, err := ParseMark(FormatMark(id, h))
			if err != nil || gotID != id || got != h {
				t.Errorf("%q: got %d %x, %v", FormatMark(id, h), gotID, got, err)
			}
		}
	}
}

func TestParseMarkRefuses(t *testing.T) {
	zeros := strings.Repeat("0", 64)
	for _, text := range []string{
		"", "1", "1 ", zeros, " " + zeros, "1  " + zeros, "1 " + zeros + " ", "1 " + zeros[1:], "1 0" + zeros,
		"+1 " + zeros, "01 " + zeros, "1 " + strings.Repeat("AB", 32), "1 " + strings.Repeat("xy", 32),
		"9223372036854775808 " + zeros,
	} {
		if id, h, err := ParseMark(text); err == nil || id != 0 || !h.IsZero() {
			t.Errorf("%q: got %d %x, %v; want an error alone", text, id, h, err)
		}
	}
}

package main

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestExpiry(t *testing.T) {
	zone := time.FixedZone("", 3600)
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, zone)
	for text, want := range map[string]time.Time{
		"":           {},
		"90d":        now.Add(90 * 24 * time.Hour),
		"1d12h":      now.Add(36 * time.Hour),
		"2027-01-31": time.Date(2027, 2, 1, 0, 0, 0, 0, zone), // that day's end
	} {
		if got, err := expiry(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"soon", "90", "-1d", "2027-02-30", "31.01.2027"} {
		if got, err := expiry(text, now); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func TestReadPassword(t *testing.T) {
	long := strings.Repeat("x", 1024)
	for input, want := range map[string]string{
		"sesame":              "sesame",
		"sesame\n":            "sesame",
		" open sesame \r\nno": " open sesame ",
		long + "\r\n":         long,
	} {
		got, err := readPassword(iotest.OneByteReader(strings.NewReader(input)))
		if err != nil || string(got) != want {
			t.Errorf("%d octets of input: %d octets, %v, want %d", len(input), len(got), err, len(want))
		}
	}
	for name, input := range map[string]io.Reader{
		"empty":      strings.NewReader(""),
		"empty line": strings.NewReader("\nsesame"),
		"too long":   strings.NewReader(long + "x\n"),
		"far longer": strings.NewReader(long + long + "\n"),
		"broken":     iotest.ErrReader(io.ErrUnexpectedEOF),
	} {
		if got, err := readPassword(input); err == nil {
			t.Errorf("%s: %d octets are taken", name, len(got))
		} else if strings.Contains(err.Error(), "x\n") || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: the error repeats the password", name)
		}
	}
}

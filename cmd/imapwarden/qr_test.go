package main

import (
	"bufio"
	"errors"
	"image/color"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/boombuler/barcode"
	"github.com/boombuler/barcode/qr"
)

const exampleURI = "otpauth://totp/mail.example.org:alice@example.org?algorithm=SHA1&digits=6&issuer=mail.example.org&period=30&secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"

// modules reads a drawing back: rows of what is drawn, top to bottom.
func modules(t *testing.T, drawing string) [][]bool {
	t.Helper()
	var rows [][]bool
	for line := range strings.Lines(drawing) {
		var upper, lower []bool
		for _, block := range strings.TrimSuffix(line, "\n") {
			upper = append(upper, block == '█' || block == '▀')
			lower = append(lower, block == '█' || block == '▄')
			if !strings.ContainsRune("█▀▄ ", block) {
				t.Fatalf("%q is no half block", block)
			}
		}
		rows = append(rows, upper, lower)
	}
	return rows
}

// sameModules compares a drawing with the code, its quiet zone included.
func sameModules(t *testing.T, rows [][]bool, code barcode.Barcode, darkIsDrawn bool) {
	t.Helper()
	size := code.Bounds().Dx()
	if want := size + 8; len(rows) < want || len(rows) > want+1 || len(rows[0]) != want {
		t.Fatalf("%d rows of %d modules, want %d each", len(rows), len(rows[0]), want)
	}
	for y, row := range rows {
		for x, drawn := range row {
			inside := x >= 4 && x < size+4 && y >= 4 && y < size+4
			want := inside && code.At(x-4, y-4) == color.Color(color.Black)
			if (drawn == darkIsDrawn) != want {
				t.Fatalf("module %d, %d of %d: dark is %t, want %t", x-4, y-4, size, !want, want)
			}
		}
	}
}

func TestWriteQR(t *testing.T) {
	for _, content := range []string{"a", exampleURI, strings.Repeat("x", 500)} {
		code, err := qr.Encode(content, qr.L, qr.Auto)
		if err != nil {
			t.Fatal(err)
		}

		// Into anything but a terminal: light blocks, no escape sequences.
		var drawing strings.Builder
		if err := writeQR(&drawing, content); err != nil {
			t.Fatal(err)
		}
		sameModules(t, modules(t, drawing.String()), code, false)

		// Onto a terminal: dark blocks, each line black on white and no further.
		drawing.Reset()
		out := bufio.NewWriter(&drawing)
		drawQR(out, code, true)
		out.Flush()
		var bare strings.Builder
		for line := range strings.Lines(drawing.String()) {
			line, before := strings.CutPrefix(line, "\x1b[38;5;16;48;5;231m")
			line, after := strings.CutSuffix(line, "\x1b[0m\n")
			if !before || !after {
				t.Fatalf("line without its colours: %q", line)
			}
			bare.WriteString(line + "\n")
		}
		sameModules(t, modules(t, bare.String()), code, true)
	}
}

// An enrolment should fit a window of 80 by 30.
func TestWriteQRFitsWindow(t *testing.T) {
	var drawing strings.Builder
	if err := writeQR(&drawing, exampleURI); err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(drawing.String(), "\n")
	if lines, columns := strings.Count(drawing.String(), "\n"), utf8.RuneCountInString(first); lines > 29 || columns > 80 {
		t.Errorf("the drawing has %d lines of %d columns", lines, columns)
	}
}

func TestWriteQRTooLong(t *testing.T) {
	content := strings.Repeat("secret=GEZDGNBV&", 250)
	var drawing strings.Builder
	err := writeQR(&drawing, content)
	if err == nil || drawing.Len() != 0 {
		t.Fatalf("4,000 octets: error %v and %d octets drawn", err, drawing.Len())
	}
	if strings.Contains(err.Error(), "GEZDGNBV") {
		t.Error("the error repeats the content")
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

func TestWriteQRSaysWhenWritingFails(t *testing.T) {
	broken := errors.New("pipe closed")
	if err := writeQR(brokenWriter{broken}, exampleURI); !errors.Is(err, broken) {
		t.Errorf("writing into a closed pipe: %v", err)
	}
}

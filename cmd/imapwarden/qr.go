package main

import (
	"bufio"
	"fmt"
	"image/color"
	"io"
	"os"

	"github.com/boombuler/barcode"
	"github.com/boombuler/barcode/qr"
	"github.com/mattn/go-isatty"
)

// quietZone is how many light modules surround a QR code: ISO/IEC 18004, section
// 9.1, asks for four, and scanners fail on dark backgrounds without it.
const quietZone = 4

// Black on white from the fixed part of the 256 colours: a terminal's theme may
// show the first sixteen in any way it likes.
const (
	blackOnWhite = "\x1b[38;5;16;48;5;231m"
	plain        = "\x1b[0m"
)

// writeQR draws content as a QR code, two modules to a character: dark on light
// in explicit colours where w is a terminal, or else in blocks without colours
// for the light modules, which fits light text on a dark background.
func writeQR(w io.Writer, content string) error {
	// The lowest error correction: a screen has no dirt, and a small code fits more windows.
	code, err := qr.Encode(content, qr.L, qr.Auto)
	if err != nil {
		// The library's error repeats the content, and that holds a secret.
		return fmt.Errorf("drawing a QR code: %d octets are too many for one", len(content))
	}
	out := bufio.NewWriter(w)
	drawQR(out, code, isTerminal(w))
	if err := out.Flush(); err != nil {
		return fmt.Errorf("drawing a QR code: %w", err)
	}
	return nil
}

// drawQR writes the lines of the drawing. The errors of out come with its Flush.
func drawQR(out *bufio.Writer, code barcode.Barcode, coloured bool) {
	size := code.Bounds().Dx()
	for y := -quietZone; y < size+quietZone; y += 2 {
		if coloured {
			out.WriteString(blackOnWhite)
		}
		for x := -quietZone; x < size+quietZone; x++ {
			// With colours the blocks are ink, without they are light.
			upper, lower := dark(code, x, y) == coloured, dark(code, x, y+1) == coloured
			out.WriteRune(halfBlock(upper, lower))
		}
		if coloured {
			out.WriteString(plain)
		}
		out.WriteByte('\n')
	}
}

// dark says whether the module is dark; those outside of the code are light.
func dark(code barcode.Barcode, x, y int) bool {
	size := code.Bounds().Dx()
	return 0 <= x && x < size && 0 <= y && y < size && code.At(x, y) == color.Color(color.Black)
}

// halfBlock returns the character with those halves drawn.
func halfBlock(upper, lower bool) rune {
	switch {
	case upper && lower:
		return '█'
	case upper:
		return '▀'
	case lower:
		return '▄'
	default:
		return ' '
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

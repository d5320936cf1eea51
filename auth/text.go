package auth

import "strings"

// textDigits are what people read off and type in: 32 letters and digits of which no two look
// alike, so that each stands for five bits.
const textDigits = "abcdefghijkmnpqrstuvwxyz23456789"

func isTextDigit(c byte) bool { return strings.IndexByte(textDigits, c) >= 0 }

// randomText returns n random digits.
func randomText(n int) string { return digitsOf(random(n)) }

// digitsOf turns each octet's lower five bits into a digit.
func digitsOf(octets []byte) string {
	text := make([]byte, len(octets))
	for i, b := range octets {
		text[i] = textDigits[b%32]
	}
	return string(text)
}

package imap

import "strings"

// The character classes of RFC 9051, section 9.

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// isAtomChar: any CHAR except atom-specials.
func isAtomChar(c byte) bool {
	return c > ' ' && c < 0x7f && strings.IndexByte(`(){%*"\]`, c) < 0
}

func isAStringChar(c byte) bool { return isAtomChar(c) || c == ']' }

// isBase64Char: RFC 4648, section 4, with its padding; a single "=" is the empty response.
func isBase64Char(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '+' || c == '/' || c == '='
}

func isTagChar(c byte) bool { return isAStringChar(c) && c != '+' }

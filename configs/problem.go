package configs

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// A Problem is one thing in a configuration file that is wrong or, as a Warning,
// allowed but unwise. Neither Text nor Message has a secret in it.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`    // from 1; 0 where nothing in the file stands for it
	Text    string `json:"text"`    // the line itself
	Key     string `json:"key"`     // like "listener[1].tls"; "" for a line that doesn't parse
	Message string `json:"message"` // which value, what is wrong with it, what to do
	Warning bool   `json:"warning"`
}

// concerns says if the problem may touch one of the top level keys, where there are any.
// A line that nobody could read may touch all of them, and so may a key that nobody knows:
// it can be one of them, misspelt.
func (p Problem) concerns(keys []string) bool {
	top, _, _ := strings.Cut(p.Key, ".")
	top, _, _ = strings.Cut(top, "[")
	known := false
	for field := range reflect.TypeFor[Config]().Fields() {
		known = known || field.Tag.Get("toml") == top
	}
	return len(keys) == 0 || !known || slices.Contains(keys, top)
}

// String is a compiler's message: file, line, what is wrong, then the line itself.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.Message)
	if p.Text != "" {
		b.WriteString("\n\t" + p.Text)
	}
	return b.String()
}

var (
	// A URL with user and password, or password alone: postgres://user:word@host.
	userInfo = regexp.MustCompile(`([A-Za-z][\w+.-]*:).*@`)
	// password = "word" in TOML, in a URL's query and in a connection string.
	assignment = regexp.MustCompile(`(?i)([\w-]*(?:passw|secret|token)[\w-]*)(["']?\s*=\s*)("(?:\\.|[^"\\])*"?|'[^']*'?|\S+)`)
	// Keys of ours that only sound so: they name a place, or count.
	harmless = regexp.MustCompile(`_file$|^password_per_(hour|day)$|^passwords$`)
)

// redact takes out of a text what looks like a secret, and what a terminal would obey.
// It takes out too much rather than too little: the reader has the file.
func redact(text string) string {
	text = userInfo.ReplaceAllString(text, "$1***@")
	text = assignment.ReplaceAllStringFunc(text, func(found string) string {
		m := assignment.FindStringSubmatch(found)
		if harmless.MatchString(m[1]) {
			return found
		}
		return m[1] + m[2] + `"***"`
	})
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

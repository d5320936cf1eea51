package configs

import "os"

// Fault is a problem that shows only to those who use what a key names, such as a list that they
// can't read. It stands at the key's line.
func Fault(path, key, message string) Problem {
	data, err := os.ReadFile(path)
	if err != nil {
		return Problem{File: path, Key: key, Message: redact(message)}
	}
	doc := newDocument(path, data)
	doc.decode(Default())
	doc.problems, doc.failed = nil, map[string]bool{}
	doc.add(key, message, false)
	return doc.problems[0]
}

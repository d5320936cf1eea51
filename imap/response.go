package imap

import (
	"bufio"
	"io"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// Bounds of what an upstream may send until its OK to our login, in all.
const (
	MaxGreeting       = 8 << 10
	MaxUntaggedLines  = 64
	MaxUntaggedOctets = 64 << 10
)

// A Response is one response of an upstream. Only what a login needs is taken apart;
// literals are read past.
type Response struct {
	Tag     string                  // "*" untagged, "+" continuation
	Type    imap.StatusResponseType // of a status response, else ""
	Code    imap.ResponseCode       // in upper case, without its arguments
	CodeArg string
	Text    string // of a status response: the text for people; else all behind the tag
}

// A ResponseReader reads the responses of an upstream that isn't trusted to be one: it
// reads at most Lines lines and Octets octets, literals counted, then says ErrTooLong.
type ResponseReader struct {
	R      *bufio.Reader
	Lines  int
	Octets int
	Raw    []byte // the newest response as it came
}

// Next reads one response.
func (r *ResponseReader) Next() (Response, error) {
	r.Raw = nil
	line, err := r.line()
	if err != nil {
		return Response{}, err
	}
	resp := parseResponse(line)
	for resp.Type == "" { // a status response ends with its line, whatever its text ends in
		header := headerAtEnd(line)
		if !header.closed() {
			break
		}
		if header.size > uint64(r.Octets) {
			return Response{}, ErrTooLong
		}
		literal := make([]byte, header.size) // within the bound
		if _, err := io.ReadFull(r.R, literal); err != nil {
			return Response{}, noEOF(err)
		}
		r.Octets -= len(literal)
		r.Raw = append(r.Raw, literal...)
		if line, err = r.line(); err != nil {
			return Response{}, err
		}
	}
	return resp, nil
}

// line reads one line without its end.
func (r *ResponseReader) line() (string, error) {
	if r.Lines == 0 {
		return "", ErrTooLong
	}
	r.Lines--
	var b []byte
	for {
		part, err := r.R.ReadSlice('\n')
		if r.Octets -= len(part); r.Octets < 0 {
			return "", ErrTooLong
		}
		b = append(b, part...)
		switch {
		case err == nil:
			r.Raw = append(r.Raw, b...)
			return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
		case err != bufio.ErrBufferFull:
			if err == io.EOF && len(b) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
	}
}

func headerAtEnd[line string | []byte](l line) (h literalHeader) {
	for i := range len(l) {
		h.next(l[i])
	}
	return h
}

func parseResponse(line string) Response {
	tag, rest, _ := strings.Cut(line, " ")
	resp := Response{Tag: tag, Text: rest}
	word, rest, _ := strings.Cut(rest, " ")
	switch t := imap.StatusResponseType(strings.ToUpper(word)); t {
	case imap.StatusResponseTypeOK, imap.StatusResponseTypeNo, imap.StatusResponseTypeBad,
		imap.StatusResponseTypePreAuth, imap.StatusResponseTypeBye:
		resp.Type, resp.Text = t, rest
	default:
		return resp
	}
	if inner, text, ok := strings.Cut(strings.TrimPrefix(resp.Text, "["), "]"); ok && strings.HasPrefix(resp.Text, "[") {
		code, arg, _ := strings.Cut(inner, " ")
		resp.Code, resp.CodeArg = imap.ResponseCode(strings.ToUpper(code)), arg
		resp.Text = strings.TrimPrefix(text, " ")
	}
	return resp
}

// Capabilities returns the list that the response carries, in a code or as an untagged
// CAPABILITY response; nil where it carries none.
func (r Response) Capabilities() Capabilities {
	if r.Code == "CAPABILITY" {
		return ParseCapabilities(r.CodeArg)
	}
	if word, list, _ := strings.Cut(r.Text, " "); r.Tag == "*" && r.Type == "" && strings.EqualFold(word, "CAPABILITY") {
		return ParseCapabilities(list)
	}
	return nil
}

// Printable is an upstream's text fit for our own response: printable ASCII without
// brackets, which could read as a code, at most 200 octets; "" where it is anything else.
func Printable(text string) string {
	if len(text) > 200 {
		return ""
	}
	for i := range len(text) {
		if text[i] < ' ' || text[i] >= 0x7f || text[i] == '[' || text[i] == ']' {
			return ""
		}
	}
	return text
}

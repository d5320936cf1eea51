package configs

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// go-toml's own decoder stops at the first value that doesn't fit. An admin wants to
// hear of all of them in one run, so we walk the syntax tree ourselves, note where
// each key stands, and go on behind whatever is wrong.

// A cursor is a place in the configuration that keys are assigned to. Its value is
// invalid inside of a table that isn't ours: then they are passed over.
type cursor struct {
	value reflect.Value
	path  string
}

func (d *document) decode(config *Config) {
	root := cursor{value: reflect.ValueOf(config).Elem()}
	table := root
	opened := map[string]int{}
	done := 0 // offset behind the last expression that was read
	for base := 0; base < len(d.data); {
		parser := &unstable.Parser{}
		parser.Reset(d.data[base:])
		walk := walker{d, parser, base}
		for parser.NextExpression() {
			e := parser.Expression()
			if e.Kind == unstable.KeyValue {
				walk.assign(table, e)
				done = base + int(e.Raw.Offset+e.Raw.Length)
				continue
			}
			table, done = walk.enter(root, e)
			if e.Kind == unstable.Table && table.path != "" {
				line := d.lineAt(done)
				if first := opened[table.path]; first > 0 {
					d.addAt(line, table.path, fmt.Sprintf("[%s] is given twice, first in line %d: put the two together", table.path, first), false)
				} else {
					opened[table.path] = line
				}
			}
		}
		if parser.Error() == nil {
			break
		}
		d.damaged = true
		begin, next := d.syntaxError(base, done, parser)
		if strings.HasPrefix(strings.TrimSpace(d.lines[begin]), "[") {
			table = cursor{} // a header that we couldn't read: nobody knows whose keys follow
		}
		base = d.offsetOf(next)
		done = base
	}
	d.confirm()
}

// syntaxError reports where the parser stopped, and returns (counting from 0) the
// line in which the broken expression begins and the line from which to go on.
func (d *document) syntaxError(base, done int, parser *unstable.Parser) (begin, next int) {
	stopped, message := base, parser.Error().Error()
	if perr, ok := errors.AsType[*unstable.ParserError](parser.Error()); ok {
		stopped += int(parser.Range(perr.Highlight).Offset)
	}
	if strings.HasSuffix(message, "at start of value") {
		message += ": a text stands in quotes"
	}
	end := min(d.lineAt(stopped), len(d.lines)) - 1
	begin = d.lineAt(done) - 1
	if done > base { // that line is a good one
		begin++
	}
	for begin < end && blank.MatchString(d.lines[begin]) {
		begin++
	}
	begin = min(begin, end)
	next = begin + 1
	if end > begin {
		// A value over several lines isn't closed: go on where something else surely
		// begins. Point at its first line, which also says if it may be shown.
		message += fmt.Sprintf(" (noticed in line %d)", end+1)
		for next < len(d.lines) && !fresh.MatchString(d.lines[next]) {
			next++
		}
	}
	d.addAt(begin+1, "", "this isn't TOML: "+message, false)
	return begin, next
}

var (
	blank = regexp.MustCompile(`^\s*(#.*)?$`)
	fresh = regexp.MustCompile(`^(\[|[\w.-]+\s*=)`) // not indented: a header or a key
)

// confirm lets go-toml judge the rest of TOML's rules, such as tables defined twice
// in some roundabout way. It knows no more than one error.
func (d *document) confirm() {
	var tables map[string]any
	decodeErr, ok := errors.AsType[*toml.DecodeError](toml.Unmarshal(d.data, &tables))
	if !ok || d.damaged {
		return
	}
	line, _ := decodeErr.Position()
	if !slices.ContainsFunc(d.problems, func(p Problem) bool { return p.Line == line }) {
		d.addAt(line, "", "this isn't TOML: "+strings.TrimPrefix(decodeErr.Error(), "toml: "), false)
	}
}

// lineAt counts from 1.
func (d *document) lineAt(offset int) int { return 1 + bytes.Count(d.data[:offset], []byte("\n")) }

// offsetOf returns where a line, counted from 0, begins.
func (d *document) offsetOf(line int) int {
	offset := 0
	for range line {
		i := bytes.IndexByte(d.data[offset:], '\n')
		if i < 0 {
			return len(d.data)
		}
		offset += i + 1
	}
	return offset
}

// A walker assigns what one parser read, from base on, to the configuration.
type walker struct {
	*document
	parser *unstable.Parser
	base   int
}

func (w walker) line(n *unstable.Node) int { return w.lineAt(w.base + int(n.Raw.Offset)) }

// enter follows a [table] or [[table]] header, and returns the offset of its end.
func (w walker) enter(root cursor, header *unstable.Node) (at cursor, end int) {
	at = root
	for it := header.Key(); it.Next(); {
		key := it.Node()
		end = w.base + int(key.Raw.Offset+key.Raw.Length)
		last := it.IsLast()
		at = w.step(at, key, true)
		if !at.value.IsValid() {
			continue
		}
		list := at.value.Kind() == reflect.Slice && isTable(at.value.Type().Elem())
		switch {
		case last && header.Kind == unstable.ArrayTable && list:
			at = appendTo(at)
			w.place[at.path] = w.line(key)
		case last && header.Kind == unstable.Table && isTable(at.value.Type()):
		case !last && list && at.value.Len() > 0: // [upstream.master] is the last upstream's
			i := at.value.Len() - 1
			at = cursor{at.value.Index(i), fmt.Sprintf("%s[%d]", at.path, i)}
		case !last && isTable(at.value.Type()):
		case list:
			w.add(at.path, fmt.Sprintf("%s is a list of tables: each begins with [[%[1]s]], in two brackets", at.path), false)
			at = cursor{}
		case isTable(at.value.Type()):
			w.add(at.path, fmt.Sprintf("there is only one %s: write [%[1]s], in one bracket", at.path), false)
			at = cursor{}
		default:
			w.add(at.path, fmt.Sprintf("%s is not a table: %s", at.path, wanted(at.value.Type())), false)
			at = cursor{}
		}
	}
	return at, end
}

// assign sets one key = value, in a table or an inline table.
func (w walker) assign(at cursor, keyValue *unstable.Node) {
	for it := keyValue.Key(); it.Next(); {
		if at.value.IsValid() && !isTable(at.value.Type()) {
			w.add(at.path, fmt.Sprintf("%s is not a table: %s", at.path, wanted(at.value.Type())), false)
			return
		}
		last := it.IsLast()
		at = w.step(at, it.Node(), !last)
		if !at.value.IsValid() {
			return
		}
		if line := w.line(it.Node()); last {
			if first, twice := w.place[at.path]; twice {
				w.addAt(line, at.path, fmt.Sprintf("%s is given twice, first in line %d: keep one", at.path, first), false)
				return
			}
			w.place[at.path] = line
		}
	}
	w.set(at, keyValue.Value())
}

// step goes from a table to one of its keys. A key that we don't know is refused:
// a misspelt setting that is silently ignored is a hole.
func (w walker) step(at cursor, key *unstable.Node, table bool) cursor {
	if !at.value.IsValid() {
		return at
	}
	name := string(key.Data)
	path := strings.TrimPrefix(at.path+"."+name, ".")
	for field, value := range at.value.Fields() {
		if field.Tag.Get("toml") != name {
			continue
		}
		if _, ok := w.place[path]; !ok && table {
			w.place[path] = w.line(key)
		}
		return cursor{value, path}
	}
	var known []string
	for field := range at.value.Type().Fields() {
		known = append(known, field.Tag.Get("toml"))
	}
	where := "at the top there are"
	if at.path != "" {
		where = at.path + " has"
	}
	w.addAt(w.line(key), path, fmt.Sprintf("unknown key %q: %s %s", path, where, strings.Join(known, ", ")), false)
	return cursor{}
}

// set gives a key its value, or says what kind of value it wants.
func (w walker) set(at cursor, n *unstable.Node) {
	if !w.fits(at, n) {
		message := wanted(at.value.Type())
		if raw := string(w.parser.Raw(n.Raw)); raw != "" && len(raw) < 80 {
			message = fmt.Sprintf("%s = %s: %s", at.path, raw, message)
		} else {
			message = at.path + ": " + message
		}
		w.add(at.path, message, false)
	}
}

func (w walker) fits(at cursor, n *unstable.Node) bool {
	if text, ok := at.value.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return n.Kind == unstable.String && text.UnmarshalText(n.Data) == nil
	}
	switch at.value.Kind() {
	case reflect.String:
		if n.Kind != unstable.String {
			return false
		}
		at.value.SetString(string(n.Data))
		return true
	case reflect.Bool:
		if n.Kind != unstable.Bool {
			return false
		}
		at.value.SetBool(string(n.Data) == "true")
		return true
	case reflect.Int:
		i, err := strconv.ParseInt(string(n.Data), 0, strconv.IntSize)
		if n.Kind != unstable.Integer || err != nil {
			return false
		}
		at.value.SetInt(i)
		return true
	case reflect.Uint32:
		i, err := strconv.ParseInt(string(n.Data), 0, 64)
		if n.Kind != unstable.Integer || err != nil || i < 0 || i > math.MaxUint32 {
			return false
		}
		at.value.SetUint(uint64(i))
		return true
	case reflect.Struct:
		if n.Kind != unstable.InlineTable {
			return false
		}
		for it := n.Children(); it.Next(); {
			w.assign(at, it.Node())
		}
		return true
	case reflect.Slice:
		if n.Kind != unstable.Array {
			return false
		}
		at.value.SetZero() // instead of the default, not behind it
		for it := n.Children(); it.Next(); {
			element := appendTo(at)
			if first := it.Node().Child(); it.Node().Kind == unstable.InlineTable && first.Valid() {
				w.place[element.path] = w.line(first)
			} else if it.Node().Raw.Length > 0 {
				w.place[element.path] = w.line(it.Node())
			}
			w.set(element, it.Node())
		}
		return true
	}
	return false
}

// appendTo adds an element to a list, with the defaults of its kind.
func appendTo(at cursor) cursor {
	element := reflect.New(at.value.Type().Elem()).Elem()
	switch e := element.Addr().Interface().(type) {
	case *Listener:
		*e = DefaultListener()
	case *Upstream:
		*e = DefaultUpstream()
	case *Rule:
		*e = DefaultRule()
	}
	i := at.value.Len()
	at.value.Set(reflect.Append(at.value, element))
	return cursor{at.value.Index(i), fmt.Sprintf("%s[%d]", at.path, i)}
}

// isTable says if a type is a table of keys, and not a struct that one text stands for.
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// wanted says what kind of value a type takes.
func wanted(t reflect.Type) string {
	switch t.Name() {
	case "Duration":
		return `must be a duration in quotes, such as "90s", "12h" or "1d12h"`
	case "Prefix":
		return `must be a network in quotes, such as "203.0.113.0/24"`
	case "Weekday":
		return `must be "mon", "tue", "wed", "thu", "fri", "sat" or "sun"`
	case "Hours":
		return `must be a part of the day in quotes, such as "08:00-18:00", or "22:00-06:00" over midnight`
	case "Moment":
		return `must be a day or a time in quotes, such as "2026-12-01", "2026-12-01 08:00" or "2026-12-01T08:00:00+01:00"`
	case "Zone":
		return `must be a time zone of the IANA database in quotes, such as "Europe/Berlin", and this machine must know it (the package tzdata)`
	}
	switch t.Kind() {
	case reflect.Struct:
		return "must be a table, such as { key = value }"
	case reflect.Slice:
		return "must be a list, such as [ value, value ]"
	case reflect.Int:
		return "must be a whole number, without quotes"
	case reflect.Uint32:
		return "must be a whole number from 0 to 4294967295, without quotes"
	case reflect.Bool:
		return "must be true or false, without quotes"
	default:
		return "must be a text in quotes"
	}
}

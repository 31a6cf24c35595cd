package accounts

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// ImportFormat is the format of a file with users.
type ImportFormat int

// The formats of files with users.
const (
	// ImportAny is found out: a file that begins with { is ndjson.
	ImportAny ImportFormat = iota
	// ImportCSV is RFC 4180 with a header line, but without line breaks in
	// values.
	ImportCSV
	// ImportNDJSON is one JSON object per line.
	ImportNDJSON
)

// MaxImportLine is the longest line of a file with users, in bytes.
const MaxImportLine = 64 << 10

// LineFault is what is wrong with one line; the lines after it can be read.
type LineFault struct{ Text string }

// Error returns the text, which repeats nothing of the line.
func (f *LineFault) Error() string { return f.Text }

func lineFault(format string, args ...any) *LineFault {
	return &LineFault{fmt.Sprintf(format, args...)}
}

// importFields are the members of a row and where they go.
var importFields = map[string]func(*ImportRow) *string{
	"external_id":   func(r *ImportRow) *string { return &r.ExternalID },
	"appid":         func(r *ImportRow) *string { return &r.AppID },
	"wechat_openid": func(r *ImportRow) *string { return &r.WeChatOpenID },
	"openid":        func(r *ImportRow) *string { return &r.WeChatOpenID },
	"unionid":       func(r *ImportRow) *string { return &r.UnionID },
	"nickname":      func(r *ImportRow) *string { return &r.Nickname },
	"picture":       func(r *ImportRow) *string { return &r.Picture },
	"username":      func(r *ImportRow) *string { return &r.Username },
	"password_hash": func(r *ImportRow) *string { return &r.PasswordHash },
}

const importFieldNames = "external_id, appid, wechat_openid, unionid, nickname, picture, username, password_hash"

// ImportReader reads a file with users, line by line and in constant memory.
type ImportReader struct {
	in      *bufio.Reader
	line    int // of what Next returned last, from 1
	bytes   int // of that line
	columns []func(*ImportRow) *string
	fields  []string // of the present line of CSV
}

// NewImportReader reads the header of a CSV file; its error says what is wrong
// with it.
func NewImportReader(r io.Reader, format ImportFormat) (*ImportReader, error) {
	f := &ImportReader{in: bufio.NewReaderSize(r, MaxImportLine)}
	head, err := f.in.Peek(3)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		_, _ = f.in.Discard(3) // was peeked at
		if head, err = f.in.Peek(1); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return nil, errors.New("the file is UTF-16; save it as UTF-8")
	}
	if len(head) == 0 {
		return nil, errors.New("the file is empty")
	}
	if format == ImportNDJSON || format == ImportAny && head[0] == '{' {
		return f, nil
	}
	return f, f.readHeader()
}

func (f *ImportReader) readHeader() error {
	line, err := f.next()
	if fault, ok := errors.AsType[*LineFault](err); ok {
		return fmt.Errorf("the header: %s", fault.Text)
	}
	if err != nil {
		return err
	}
	names, ok := splitCSV(string(line), nil)
	if !ok {
		return errors.New("the header is not a line of CSV: check its quotes")
	}
	seen := make(map[*string]bool)
	var probe ImportRow
	for i, name := range names {
		field := importFields[strings.ToLower(strings.TrimSpace(name))]
		if field == nil {
			return fmt.Errorf("column %d of the header is none of %s; columns are separated by commas", i+1, importFieldNames)
		}
		if seen[field(&probe)] {
			return fmt.Errorf("column %d of the header is there twice", i+1)
		}
		seen[field(&probe)] = true
		f.columns = append(f.columns, field)
	}
	return nil
}

// Line returns the number of the line that Next returned last, from 1.
func (f *ImportReader) Line() int { return f.line }

// LineBytes returns the length of that line.
func (f *ImportReader) LineBytes() int { return f.bytes }

// SkipTo makes Next return what is on line or after it.
func (f *ImportReader) SkipTo(line int) error {
	for f.line+1 < line {
		if _, err := f.next(); err != nil {
			if _, ok := errors.AsType[*LineFault](err); !ok {
				return err
			}
		}
	}
	return nil
}

// Next returns the next row. The error is io.EOF at the end, a [*LineFault]
// for a line that is none, or the file's.
func (f *ImportReader) Next() (ImportRow, error) {
	for {
		line, err := f.next()
		if err != nil {
			return ImportRow{}, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if f.columns == nil {
			return parseObject(line)
		}
		return f.parseRecord(string(line))
	}
}

// next returns the next line without its end, good until the next call.
func (f *ImportReader) next() ([]byte, error) {
	line, err := f.in.ReadSlice('\n')
	if len(line) == 0 && err != nil {
		return nil, err
	}
	f.line++
	f.bytes = len(line)
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = f.in.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return nil, lineFault("the line is longer than %d bytes; is a quote or a line break missing?", MaxImportLine)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	if !utf8.Valid(line) {
		return nil, lineFault("the line is not UTF-8")
	}
	return line, nil
}

func (f *ImportReader) parseRecord(line string) (row ImportRow, err error) {
	fields, ok := splitCSV(line, f.fields[:0])
	if !ok {
		return row, lineFault("a quote is not where it may be: a value with a comma or a quote stands in quotes, with its own quotes doubled, and has no line break")
	}
	if f.fields = fields; len(fields) != len(f.columns) {
		return row, lineFault("there are %d values and %d columns in the header", len(fields), len(f.columns))
	}
	for i, field := range f.columns {
		*field(&row) = fields[i]
	}
	return row, nil
}

// splitCSV splits one line into its values (RFC 4180 §2, without line breaks
// in values).
func splitCSV(line string, fields []string) ([]string, bool) {
	for {
		if !strings.HasPrefix(line, `"`) {
			value, rest, more := strings.Cut(line, ",")
			if strings.Contains(value, `"`) {
				return nil, false
			}
			if fields = append(fields, value); !more {
				return fields, true
			}
			line = rest
			continue
		}
		var value strings.Builder
		for line = line[1:]; ; line = line[1:] {
			part, rest, closed := strings.Cut(line, `"`)
			if !closed {
				return nil, false
			}
			value.WriteString(part)
			if line = rest; !strings.HasPrefix(line, `"`) {
				break
			}
			value.WriteByte('"')
		}
		fields = append(fields, value.String())
		if line == "" {
			return fields, true
		}
		if line[0] != ',' {
			return nil, false
		}
		line = line[1:]
	}
}

// parseObject reads one JSON object whose members are strings; external_id may
// be a whole number.
func parseObject(line []byte) (row ImportRow, err error) {
	if !json.Valid(line) {
		return row, lineFault("the line is not JSON; each line is one object")
	}
	members, ok := object(line, 64)
	if !ok {
		return row, lineFault("the line is not a JSON object, or has a member twice")
	}
	seen := make(map[*string]bool, len(members))
	for name, raw := range members {
		field := importFields[name]
		if field == nil {
			return ImportRow{}, lineFault("there is a member that is none of %s", importFieldNames)
		}
		to := field(&row)
		if seen[to] {
			return ImportRow{}, lineFault("the openid is there twice, as openid and as wechat_openid")
		}
		seen[to] = true
		if *to, ok = text(raw); ok {
			continue
		}
		if name == "external_id" && wholeNumber(raw) {
			*to = string(raw)
			continue
		}
		return ImportRow{}, lineFault("%s is not a string", name)
	}
	return row, nil
}

// wholeNumber reports whether a JSON value is a number of digits alone.
func wholeNumber(raw json.RawMessage) bool {
	for _, c := range raw {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(raw) > 0
}

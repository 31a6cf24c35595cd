package accounts

import (
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// line is what an ImportReader made of one line.
type line struct {
	number int
	row    ImportRow
	fault  string
}

func readAll(t testing.TB, r *ImportReader) (lines []line) {
	t.Helper()
	for {
		row, err := r.Next()
		fault, isFault := errors.AsType[*LineFault](err)
		switch {
		case errors.Is(err, io.EOF):
			return lines
		case isFault:
			lines = append(lines, line{r.Line(), row, fault.Text})
		case err != nil:
			t.Fatal(err)
		default:
			lines = append(lines, line{r.Line(), row, ""})
		}
	}
}

func TestImportReader(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	ming := ImportRow{ExternalID: "1", AppID: "wx1", WeChatOpenID: "o1"}
	for name, test := range map[string]struct {
		text   string
		format ImportFormat
		want   []line // a fault is the beginning of the text
	}{
		"csv":                               {"external_id,appid,openid\n1,wx1,o1\n", ImportAny, []line{{2, ming, ""}}},
		"csv in another order, no line end": {"OPENID, External_ID ,appid\no1,1,wx1", ImportCSV, []line{{2, ming, ""}}},
		"BOM and CRLF":                      {"\xef\xbb\xbfexternal_id,appid,wechat_openid\r\n1,wx1,o1\r\n\r\n1,wx1,o1\r\n", ImportAny, []line{{2, ming, ""}, {4, ming, ""}}},
		"quotes": {"external_id,nickname\n\"1\",\"a \"\"b\"\", c\"\n", ImportAny, []line{
			{2, ImportRow{ExternalID: "1", Nickname: `a "b", c`}, ""}}},
		"a formula is text": {"external_id,nickname\n1,=HYPERLINK(1)\n", ImportAny, []line{
			{2, ImportRow{ExternalID: "1", Nickname: "=HYPERLINK(1)"}, ""}}},
		"hostile lines of csv": {"external_id,nickname\n1\n1,2,3\n1,a\"b\n\"1\",\"b\n\"1\"x,2\n" + long + "\n1,\xff\n1,\x00\n2,ok\n", ImportAny, []line{
			{2, ImportRow{}, "there are 1 values and 2 columns"}, {3, ImportRow{}, "there are 3 values"}, {4, ImportRow{}, "a quote is not where"},
			{5, ImportRow{}, "a quote is not where"}, {6, ImportRow{}, "a quote is not where"}, {7, ImportRow{}, "the line is longer than 65536 bytes"},
			{8, ImportRow{}, "the line is not UTF-8"}, {9, ImportRow{ExternalID: "1", Nickname: "\x00"}, ""}, {10, ImportRow{ExternalID: "2", Nickname: "ok"}, ""}}},
		"ndjson":                        {"{\"external_id\":1,\"appid\":\"wx1\",\"openid\":\"o1\",\"unionid\":null}\n", ImportAny, []line{{1, ming, ""}}},
		"a big number stays what it is": {`{"external_id":12345678901234567890}`, ImportNDJSON, []line{{1, ImportRow{ExternalID: "12345678901234567890"}, ""}}},
		"hostile lines of ndjson": {strings.Join([]string{`{"appid":"wx1"`, `[]`, `"x"`, `{"appid":"a","appid":"b"}`, `{"openid":"a","wechat_openid":"b"}`,
			`{"secret_thing":1}`, `{"appid":1}`, `{"external_id":1.5}`, `{"external_id":-1}`, `{"external_id":[1]}`, `{"external_id":"1"} {}`, long, `{}`}, "\n"), ImportNDJSON, []line{
			{1, ImportRow{}, "the line is not JSON"}, {2, ImportRow{}, "the line is not a JSON object"}, {3, ImportRow{}, "the line is not a JSON object"},
			{4, ImportRow{}, "the line is not a JSON object, or has a member twice"}, {5, ImportRow{}, "the openid is there twice"},
			{6, ImportRow{}, "there is a member that is none of"}, {7, ImportRow{}, "appid is not a string"}, {8, ImportRow{}, "external_id is not a string"},
			{9, ImportRow{}, "external_id is not a string"}, {10, ImportRow{}, "external_id is not a string"}, {11, ImportRow{}, "the line is not JSON"},
			{12, ImportRow{}, "the line is longer"}, {13, ImportRow{}, ""}}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := NewImportReader(strings.NewReader(test.text), test.format)
			if err != nil {
				t.Fatal(err)
			}
			got := readAll(t, r)
			for i := range got {
				if i < len(test.want) && test.want[i].fault != "" && strings.HasPrefix(got[i].fault, test.want[i].fault) {
					got[i].fault = test.want[i].fault
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestImportHeaderFaults(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "the file is empty",
		"\xef\xbb\xbf":                         "the file is empty",
		"\xff\xfea\x00":                        "UTF-16",
		"\xfe\xff\x00a":                        "UTF-16",
		"external_id,openid,external_id\n":     "column 3 of the header is there twice",
		"external_id,openid,wechat_openid\n":   "column 3 of the header is there twice",
		"external_id;openid\n":                 "columns are separated by commas",
		"external_id,secret\n":                 "column 2 of the header is none of",
		"\"external_id\n":                      "check its quotes",
		"\xc3(\n":                              "not UTF-8",
		strings.Repeat("external_id,", 10_000): "longer than",
		"1,wx0123456789abcdef,oCANARYopenid7Jq0V": "column 1 of the header is none of",
	} {
		if _, err := NewImportReader(strings.NewReader(text), ImportAny); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%.40q: the error repeats the file: %v", text, err)
		}
	}
}

func TestImportSkipTo(t *testing.T) {
	for _, test := range []struct {
		line int
		want []int
	}{{1, []int{2, 3, 4}}, {2, []int{2, 3, 4}}, {4, []int{4}}, {5, nil}, {1000, nil}} {
		r, err := NewImportReader(strings.NewReader("username\na\n"+"b\nc"), ImportCSV)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.SkipTo(test.line); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		var got []int
		for _, line := range readAll(t, r) {
			got = append(got, line.number)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("from line %d: lines %v, want %v", test.line, got, test.want)
		}
	}
}

func FuzzImportReader(f *testing.F) {
	for _, seed := range []string{
		"external_id,appid,openid\n1,wx1,o1\n\n\"a\"\"b\",,\n", "{\"external_id\":1}\n{\"appid\":null}\n[]\n{", "\xef\xbb\xbfusername,password_hash\r\na,b\r\n",
		"external_id\n\x00\n\xff\n", "{\"openid\":\"\\ud800\"}\n", "external_id,external_id\n", "\"external_id\"\n\"\n",
	} {
		f.Add(seed, 1)
	}
	f.Add("username\na\nb\nc\n", 3)
	f.Fuzz(func(t *testing.T, text string, from int) {
		r, err := NewImportReader(strings.NewReader(text), ImportAny)
		if err != nil {
			return
		}
		if err := r.SkipTo(from); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		last, d := 0, importDirectory()
		for _, line := range readAll(t, r) {
			if line.number <= last || line.number > strings.Count(text, "\n")+1 || line.number < from {
				t.Fatalf("line %d after %d, from %d", line.number, last, from)
			}
			if last = line.number; line.fault != "" && line.row != (ImportRow{}) {
				t.Fatalf("a fault with a row: %+v", line)
			}
			d.judgeRow(&line.row)
		}
	})
}

// FuzzSplitCSV holds the splitter against encoding/csv, where both take a line.
func FuzzSplitCSV(f *testing.F) {
	for _, seed := range []string{`a,b`, `"a","b"`, `"a""b",c`, `a"b`, `"a"b`, `,,`, `""`, `"`, `"a,`, ` "a"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" || strings.ContainsAny(text, "\r\n") {
			return
		}
		reader := csv.NewReader(strings.NewReader(text))
		want, err := reader.Read()
		got, ok := splitCSV(text, nil)
		if ok != (err == nil) || ok && !slices.Equal(got, want) {
			t.Fatalf("%q: %q, %v; encoding/csv says %q, %v", text, got, ok, want, err)
		}
	})
}

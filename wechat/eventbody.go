package wechat

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wxidp/wxidp/internal/ascii"
)

// push holds the members of a push's body that mean something here.
type push struct {
	msgType, event, createdAt, appID, openID, unionID, revokeInfo, pluginID, openPID, encrypt string

	createTime time.Time
	taken      map[string]bool
}

// The bounds of an XML body.
const (
	maxXMLDepth  = 8
	maxXMLTokens = 1024
)

// parsePush reads the body of a push, which is JSON or XML as the app's
// console says. A member that means something may not come twice.
func parsePush(body []byte) (push, bool) {
	p := push{taken: map[string]bool{}}
	body = bytes.TrimLeft(body, " \t\r\n")
	if !utf8.Valid(body) || len(body) == 0 {
		return push{}, false
	}
	ok := false
	switch body[0] {
	case '{':
		ok = p.readJSON(body)
	case '<':
		ok = p.readXML(body)
	}
	if !ok {
		return push{}, false
	}
	return p, true
}

// take sets a member that means something, and reports false for one that came
// before or has a value that it cannot have.
func (p *push) take(name, text string) bool {
	name = strings.TrimSpace(name) // one of WeChat's samples has a space before its names
	field := p.field(name)
	if field == nil {
		return true
	}
	if p.taken[name] {
		return false
	}
	p.taken[name] = true
	*field = strings.TrimSpace(text)
	switch name {
	case "Encrypt":
		return true
	case "CreateTime":
		seconds, err := strconv.ParseInt(*field, 10, 64)
		p.createTime = time.Unix(seconds, 0)
		return err == nil && seconds > 0 && seconds < 1<<40
	}
	return *field == "" || ascii.Visible(*field, maxID)
}

func (p *push) field(name string) *string {
	switch name {
	case "MsgType":
		return &p.msgType
	case "Event":
		return &p.event
	case "CreateTime":
		return &p.createdAt
	case "AppID":
		return &p.appID
	case "OpenID":
		return &p.openID
	case "UnionID":
		return &p.unionID
	case "RevokeInfo":
		return &p.revokeInfo
	case "PluginID":
		return &p.pluginID
	case "OpenPID":
		return &p.openPID
	case "Encrypt":
		return &p.encrypt
	}
	return nil
}

func (p *push) readJSON(body []byte) bool {
	if !json.Valid(body) {
		return false
	}
	s := scanner{rest: body}
	ok := true
	whole := s.object(func(name string, v value) {
		// A list or object is no member that means something.
		if v.scalar() {
			ok = p.take(name, v.text) && ok
		}
	})
	return whole && ok
}

// readXML reads <xml> and the text of its children. encoding/xml knows no
// entities but the five of XML itself and characters by number; a document
// type, where others could be defined, is refused.
func (p *push) readXML(body []byte) bool {
	d := xml.NewDecoder(bytes.NewReader(body))
	depth, child, ended := 0, "", false
	var text strings.Builder
	for range maxXMLTokens {
		t, err := d.Token() // checks the nesting
		if err == io.EOF {
			return ended
		}
		if err != nil {
			return false
		}
		switch t := t.(type) {
		case xml.StartElement:
			depth++
			if ended || depth > maxXMLDepth || depth == 1 && plainName(t.Name) != "xml" {
				return false
			}
			if depth == 2 {
				child = plainName(t.Name)
				text.Reset()
			}
		case xml.EndElement:
			depth--
			if depth == 1 && !p.take(child, text.String()) {
				return false
			}
			ended = depth == 0
		case xml.CharData:
			if depth == 2 {
				text.Write(t)
			} else if depth < 2 && len(bytes.TrimSpace(t)) > 0 {
				return false
			}
		case xml.Directive:
			return false
		}
	}
	return false
}

func plainName(n xml.Name) string {
	if n.Space != "" {
		return ""
	}
	return n.Local
}

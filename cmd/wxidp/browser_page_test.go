package main

import (
	"net/url"
	"strings"

	"golang.org/x/net/html"
)

// pageForm is a form of a page.
type pageForm struct {
	action string
	fields url.Values
}

// form is the page's form whose action ends so.
func (v visit) form(action string) (pageForm, bool) {
	for _, form := range v.forms() {
		if strings.HasSuffix(form.action, action) {
			return form, true
		}
	}
	return pageForm{}, false
}

func (v visit) forms() (forms []pageForm) {
	for node := range v.nodes() {
		switch node.Data {
		case "form":
			forms = append(forms, pageForm{action: attribute(node, "action"), fields: url.Values{}})
		case "input":
			if name := attribute(node, "name"); name != "" && len(forms) > 0 {
				forms[len(forms)-1].fields.Add(name, attribute(node, "value"))
			}
		}
	}
	return forms
}

// page is the kind of page, "" for none.
func (v visit) page() string {
	for node := range v.nodes() {
		if kind, ok := strings.CutPrefix(attribute(node, "class"), "card "); ok && node.Data == "main" {
			kind, _, _ = strings.Cut(kind, " ")
			return kind
		}
	}
	return ""
}

// text is what stands in the element with an id.
func (v visit) text(id string) string {
	for node := range v.nodes() {
		if attribute(node, "id") == id {
			var text strings.Builder
			for child := range node.Descendants() {
				if child.Type == html.TextNode {
					text.WriteString(child.Data)
				}
			}
			return strings.TrimSpace(text.String())
		}
	}
	return ""
}

// input is the value of the input with an id.
func (v visit) input(id string) string {
	for node := range v.nodes() {
		if node.Data == "input" && attribute(node, "id") == id {
			return attribute(node, "value")
		}
	}
	return ""
}

// nodes are the elements of the page in order.
func (v visit) nodes() func(func(*html.Node) bool) {
	return func(yield func(*html.Node) bool) {
		if !strings.HasPrefix(v.Header.Get("Content-Type"), "text/html") {
			return
		}
		doc, err := html.Parse(strings.NewReader(string(v.Body)))
		if err != nil {
			return
		}
		for node := range doc.Descendants() {
			if node.Type == html.ElementNode && !yield(node) {
				return
			}
		}
	}
}

func attribute(node *html.Node, name string) string {
	for _, attr := range node.Attr {
		if attr.Key == name {
			return attr.Val
		}
	}
	return ""
}

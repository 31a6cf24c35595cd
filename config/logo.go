package config

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
)

const (
	namespaceSVG   = "http://www.w3.org/2000/svg"
	namespaceXHTML = "http://www.w3.org/1999/xhtml"
	typeSVG        = "image/svg+xml"
)

// checkLogo tells an image's media type by its content. It repeats nothing of
// the image.
func checkLogo(data []byte) (mediaType, problem, fix string) {
	switch mediaType := http.DetectContentType(data); mediaType {
	case "image/png", "image/jpeg", "image/webp":
		return mediaType, "", ""
	}
	if problem, fix := checkSVG(data); problem != "" {
		return "", problem, fix
	}
	return typeSVG, "", ""
}

// checkSVG refuses an SVG that does more than show: the page of the issuer
// that it would then run on holds people's sign-ins.
func checkSVG(data []byte) (problem, fix string) {
	const (
		noImage = "is neither SVG, PNG, JPEG nor WebP"
		active  = "is an SVG with something that could run, or with HTML"
		plain   = "export it as a plain SVG, or as PNG"
	)
	decoder := xml.NewDecoder(bytes.NewReader(data))
	root := true
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) && !root {
			return "", ""
		}
		if err != nil {
			return noImage, "an SVG must be well-formed XML in UTF-8"
		}
		switch token := token.(type) {
		case xml.StartElement:
			if root && (token.Name.Local != "svg" || token.Name.Space != namespaceSVG) {
				return noImage, "the outermost element of an SVG is svg, of the namespace " + namespaceSVG
			}
			root = false
			if activeElement(token) {
				return active, plain
			}
		case xml.Directive: // a DOCTYPE may declare entities that hide markup
			if bytes.ContainsAny(token, "[") {
				return active, plain
			}
		case xml.ProcInst:
			if token.Target != "xml" {
				return active, plain
			}
		}
	}
}

// activeElement reports whether an element of an SVG runs something, or can
// make another do so.
func activeElement(element xml.StartElement) bool {
	switch strings.ToLower(element.Name.Local) {
	case "script", "foreignobject", "handler", "listener", "iframe", "embed", "object":
		return true
	}
	return element.Name.Space == namespaceXHTML || slices.ContainsFunc(element.Attr, activeAttribute)
}

func activeAttribute(attr xml.Attr) bool {
	if attr.Name.Space == "xmlns" {
		return false
	}
	name, value := strings.ToLower(attr.Name.Local), strings.ToLower(strings.TrimSpace(attr.Value))
	switch {
	case strings.HasPrefix(name, "on"):
		return true
	case name == "href" || name == "src":
		return !strings.HasPrefix(value, "#") && !passiveData(value)
	case name == "attributename": // what an animation changes
		_, local, found := strings.Cut(value, ":")
		if !found {
			local = value
		}
		return local == "href" || local == "src" || strings.HasPrefix(local, "on")
	}
	return false
}

// passiveData reports whether a URL is an image of pixels in itself.
func passiveData(value string) bool {
	return slices.ContainsFunc([]string{"data:image/png;", "data:image/jpeg;", "data:image/webp;"},
		func(prefix string) bool { return strings.HasPrefix(value, prefix) })
}

package config

import (
	"strings"
	"testing"
)

const svgStart = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">`

var passiveSVGs = []string{
	svgStart + `</svg>`,
	`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">` + svgStart + `<g/></svg>`,
	svgStart + `<!-- <script> --><title>on&amp;on</title><style>path{fill:#07c160}</style><path id="a" d="M0 0h9"/><use xlink:href="#a"/></svg>`,
	svgStart + `<image href="data:image/png;base64,iVBORw0KGgo="/><animate attributeName="opacity"/></svg>`,
	`<s:svg xmlns:s="http://www.w3.org/2000/svg" xmlns:online="https://x.example/"><s:path/></s:svg>`,
}

var activeSVGs = []string{
	svgStart + `<script>1</script></svg>`,
	svgStart + `<SCRIPT/></svg>`,
	svgStart + `<x:script xmlns:x="http://www.w3.org/1999/xhtml">1</x:script></svg>`,
	svgStart + `<g onclick="x()"/></svg>`,
	svgStart + `<g ONLOAD="x()"/></svg>`,
	`<svg xmlns="http://www.w3.org/2000/svg" onload="x()"/>`,
	svgStart + `<foreignObject/></svg>`,
	svgStart + `<p xmlns="http://www.w3.org/1999/xhtml"/></svg>`,
	svgStart + `<a href="javascript:x()"/></svg>`,
	svgStart + `<a xlink:href=" java&#10;script:x()"/></svg>`,
	svgStart + `<a href="https://evil.example/"/></svg>`,
	svgStart + `<use href="data:image/svg+xml,x"/></svg>`,
	svgStart + `<a><animate attributeName="href" values="javascript:x()"/></a></svg>`,
	svgStart + `<set attributeName=" xlink:href " to="javascript:x()"/></svg>`,
	svgStart + `<set attributeName="onclick" to="x()"/></svg>`,
	`<?xml-stylesheet href="x.xsl" type="text/xsl"?>` + svgStart + `</svg>`,
	`<!DOCTYPE svg [<!ENTITY x "<script/>">]>` + svgStart + `</svg>`,
}

func TestThreat13LogosCannotRun(t *testing.T) {
	for _, svg := range passiveSVGs {
		if mediaType, problem, _ := checkLogo([]byte(svg)); mediaType != "image/svg+xml" || problem != "" {
			t.Errorf("%s: %q, %q", svg, mediaType, problem)
		}
	}
	for _, svg := range activeSVGs {
		if _, problem, _ := checkLogo([]byte(svg)); !strings.Contains(problem, "could run") {
			t.Errorf("%s: %q", svg, problem)
		}
	}
	for _, other := range []string{
		"", "x", "<svg/>", `<html xmlns="http://www.w3.org/1999/xhtml"/>`, svgStart, svgStart + "&x;</svg>", "GIF89a\x01\x00", "%PDF-1.7",
		`<?xml version="1.0" encoding="UTF-16"?>` + svgStart + "</svg>", "\xff\xfe<\x00s\x00v\x00g\x00",
	} {
		if _, problem, _ := checkLogo([]byte(other)); !strings.Contains(problem, "neither SVG") {
			t.Errorf("%q: %q", other, problem)
		}
	}
	for image, want := range map[string]string{
		"\x89PNG\r\n\x1a\n": "image/png", "\xff\xd8\xff\xe0": "image/jpeg", "RIFF\x00\x00\x00\x00WEBPVP8 ": "image/webp",
	} {
		if mediaType, problem, _ := checkLogo([]byte(image)); mediaType != want || problem != "" {
			t.Errorf("%q: %q, %q", image, mediaType, problem)
		}
	}
}

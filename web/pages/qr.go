package pages

import (
	"encoding/base64"
	"fmt"
	"html/template"
	"image/color"
	"strings"

	"github.com/boombuler/barcode/qr"
)

// quietZone is the width of the light border that readers need, in modules
// (ISO/IEC 18004 §6.3.8).
const quietZone = 4

// QR draws a QR code as an SVG in a data URL, always dark on white. It fails for
// a text that is too long for one, which none below 2 kB is.
func QR(text string) (template.URL, error) {
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return "", fmt.Errorf("QR code: %w", err)
	}
	size := code.Bounds().Dx()
	whole := size + 2*quietZone
	var svg strings.Builder
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" shape-rendering="crispEdges">`+
		`<path fill="#fff" d="M0 0h%dv%dH0z"/><path d="`, whole, whole, whole, whole)
	for y := range size {
		for x := 0; x < size; {
			start := x
			for x < size && code.At(x, y) == color.Black {
				x++
			}
			if x > start {
				fmt.Fprintf(&svg, "M%d %dh%dv1h-%dz", start+quietZone, y+quietZone, x-start, x-start)
				continue
			}
			x++
		}
	}
	svg.WriteString(`"/></svg>`)
	return template.URL("data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString([]byte(svg.String()))), nil
}

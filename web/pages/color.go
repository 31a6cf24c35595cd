package pages

import (
	"encoding/hex"
	"fmt"
	"math"
	"strings"
)

// defaultColor is WeChat's green.
const defaultColor = "#07c160"

// readable is the least contrast of text (WCAG 2.2 §1.4.3).
const readable = 4.5

// visible is the least contrast of a button's shape with what it lies on. Its
// text must be readable anyway, so this is about recognising it.
const visible = 2

// The extreme surfaces that text lies on, as in static/style.css: the darker
// one of light mode, the lighter one of dark mode.
var (
	lightSurface = rgb{0xf3, 0xf5, 0xf4}
	darkSurface  = rgb{0x1b, 0x21, 0x1e}
	white        = rgb{0xff, 0xff, 0xff}
	black        = rgb{}
)

type rgb [3]uint8

// parseColor reads #rgb and #rrggbb.
func parseColor(s string) (rgb, error) {
	digits, ok := strings.CutPrefix(s, "#")
	if ok && len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || len(raw) != 3 {
		return rgb{}, fmt.Errorf("%q is no colour: write it as #07c160", s)
	}
	return rgb(raw), nil
}

// String returns the colour as #rrggbb.
func (c rgb) String() string { return "#" + hex.EncodeToString(c[:]) }

// luminance is the relative luminance (WCAG 2.2, "relative luminance").
func (c rgb) luminance() float64 {
	linear := func(channel uint8) float64 {
		v := float64(channel) / 255
		if v <= 0.04045 {
			return v / 12.92
		}
		return math.Pow((v+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c[0]) + 0.7152*linear(c[1]) + 0.0722*linear(c[2])
}

// contrast is the contrast ratio of two colours, from 1 to 21.
func contrast(a, b rgb) float64 {
	light, dark := a.luminance(), b.luminance()
	if light < dark {
		light, dark = dark, light
	}
	return (light + 0.05) / (dark + 0.05)
}

// mix returns c with this percentage of other in it.
func (c rgb) mix(other rgb, percent int) rgb {
	for i := range c {
		c[i] = uint8((int(c[i])*(100-percent) + int(other[i])*percent + 50) / 100)
	}
	return c
}

// against returns the colour next to c, in the direction of toward, that has
// this contrast with the surface.
func (c rgb) against(surface, toward rgb, ratio float64) rgb {
	for percent := 0; percent < 100; percent++ {
		if mixed := c.mix(toward, percent); contrast(mixed, surface) >= ratio {
			return mixed
		}
	}
	return toward
}

// on returns the text colour for a surface: the better one of black and white
// has a contrast of 4.58 at least.
func (c rgb) on() rgb {
	if contrast(white, c) >= readable {
		return white
	}
	return black
}

// palette are the colours of one mode that follow from a brand's.
type palette struct {
	accent, onAccent, hover, link, tint rgb
	dark                                *palette // of dark mode; nil in it
}

func newPalette(color string) (palette, error) {
	if color == "" {
		color = defaultColor
	}
	brand, err := parseColor(color)
	if err != nil {
		return palette{}, err
	}
	light := paletteFor(brand, lightSurface, white, black)
	dark := paletteFor(brand, darkSurface, darkSurface, white)
	light.dark = &dark
	return light, nil
}

func paletteFor(brand, surface, tinted, toward rgb) palette {
	p := palette{accent: brand.against(surface, toward, visible)}
	p.onAccent = p.accent.on()
	away := white
	if p.onAccent == white {
		away = black
	}
	p.hover = p.accent.mix(away, 14)
	p.link = brand.against(surface, toward, readable+0.3)
	p.tint = tinted.mix(p.link, 12)
	return p
}

// stylesheet defines the custom properties that static/style.css uses.
func (p palette) stylesheet() []byte {
	properties := func(p palette) string {
		return fmt.Sprintf(":root{--accent:%v;--on-accent:%v;--accent-hover:%v;--link:%v;--tint:%v}",
			p.accent, p.onAccent, p.hover, p.link, p.tint)
	}
	return []byte(properties(p) + "\n@media (prefers-color-scheme:dark){" + properties(*p.dark) + "}\n")
}

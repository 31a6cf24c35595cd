package simulator

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"image"
	"image/color"
	"image/jpeg"
	"net/http"
	"strings"
)

const (
	drawingsPerMinute = 5000 // of an app
	defaultWidth      = 430
	minWidth          = 280
	maxWidth          = 1280
	maxScene          = 32
)

type qrCodeRequest struct {
	Scene      string `json:"scene"`
	Page       string `json:"page"`
	EnvVersion string `json:"env_version"`
	Width      int    `json:"width"`
}

// drawQRCode answers getUnlimitedQRCode with a JPEG. It is no code that a
// phone could read; see qrCodeImage.
func (s *Simulator) drawQRCode(c *call) {
	if c.r.Method != http.MethodPost {
		c.fail(43002)
		return
	}
	body, whole := readBody(c.r)
	if in := s.qrCode(c, body, whole); in != nil {
		c.body, c.image = qrCodeImage(c.body, in), true
	}
}

// qrCode returns the code to draw, or nil after an error.
func (s *Simulator) qrCode(c *call, body []byte, whole bool) *qrCodeRequest {
	in := &qrCodeRequest{Width: defaultWidth, EnvVersion: "release"}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.authorize(c)
	switch {
	case a == nil || c.force():
	case len(body) == 0:
		c.fail(44002)
	case !whole || json.Unmarshal(body, in) != nil:
		c.fail(47001)
	case a.drawings.add(c.now.Unix()/60) > drawingsPerMinute:
		c.fail(45009)
	case in.Scene == "" || len(in.Scene) > maxScene:
		c.fail(40169)
	case !validScene(in.Scene):
		c.fail(40129)
	case strings.HasPrefix(in.Page, "/") || strings.Contains(in.Page, "?"):
		c.fail(41030)
	case in.EnvVersion != "release" && in.EnvVersion != "trial" && in.EnvVersion != "develop",
		in.Width < minWidth || in.Width > maxWidth:
		c.fail(40097)
	default:
		return in
	}
	return nil
}

func validScene(scene string) bool {
	const others = "!#$&'()*+,/:;=?@-._~"
	for _, r := range scene {
		if (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(others, r) {
			return false
		}
	}
	return true
}

// qrCodeImage appends a gray JPEG of the width that was asked for. What a phone
// would learn by scanning stands in its comment: page?scene=…
func qrCodeImage(b []byte, in *qrCodeRequest) []byte {
	gray := image.NewGray(image.Rect(0, 0, in.Width, in.Width))
	for i := range gray.Pix {
		gray.Pix[i] = color.Gray{Y: 0xc0}.Y
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, gray, &jpeg.Options{Quality: 10}); err != nil {
		panic(err) // a buffer takes everything
	}
	comment := in.Page + "?scene=" + in.Scene
	drawn := out.Bytes()
	b = append(b, drawn[:2]...) // the marker that starts an image
	b = append(b, 0xff, 0xfe)
	b = binary.BigEndian.AppendUint16(b, uint16(2+len(comment)))
	b = append(b, comment...)
	return append(b, drawn[2:]...)
}

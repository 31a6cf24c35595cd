package wechat

import "context"

// QRCodeRequest asks for a mini-program code.
type QRCodeRequest struct {
	Scene      string // 1 to 32 characters of the alphabet that WeChat allows
	Page       string // of the mini-program, without leading slash or query; "": its home page
	EnvVersion string // release, trial or develop; "": release
}

// QRCode is an image of a mini-program code.
type QRCode struct {
	Image     []byte
	MediaType string // image/jpeg or image/png
}

// UnlimitedQRCode draws a mini-program code.
func (c *Client) UnlimitedQRCode(ctx context.Context, appid string, in QRCodeRequest) (QRCode, error) {
	panic("to be written")
}

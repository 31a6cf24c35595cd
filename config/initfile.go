package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"text/template"
)

// InitParams is what a first config file depends on. Empty fields take the
// values named.
type InitParams struct {
	Issuer      string // http://127.0.0.1:8080
	Listen      string // 127.0.0.1:8080
	AdminListen string // 127.0.0.1:8081

	WeChatBaseURL string // https://api.weixin.qq.com
	AppID         string // wx0123456789abcdef
	AppSecretFile string // a file with the AppSecret; empty writes ${WECHAT_SECRET}
	OpenPlatform  string // name of the Open Platform account; empty: none

	ClientID string // shop-mini: a public client that signs in with AppID
	Audience string // https://api.shop.example

	// IntrospectionSecretFile is a file with the secret of a confidential
	// client orders-api that may introspect; empty leaves it commented out.
	IntrospectionSecretFile string

	// Demo adds all that there is to try out: a second app of the same Open
	// Platform account with a client of its own, sign-in by phone number,
	// scanning with AppID, a device client shop-tv and, for orders-api, WeChat
	// data. Nil: none of it.
	Demo *InitDemo
}

// InitDemo is the second app of a demonstration, and its web application.
type InitDemo struct {
	AppID         string
	AppSecretFile string
	ClientID      string

	// WebSecretFile is a file with the secret of a confidential client
	// shop-web, which runs on http://127.0.0.1:3000 and needs an issuer that is
	// http on loopback, too; empty leaves the client out.
	WebSecretFile string
}

// InitFile returns a commented config.yaml to start from. It holds no secret,
// and loads without a fault once WECHAT_SECRET or AppSecretFile is there and
// the parameters are themselves valid.
func InitFile(p InitParams) []byte {
	defaults := Default()
	p.Issuer = cmp.Or(p.Issuer, "http://127.0.0.1:8080")
	p.Listen = cmp.Or(p.Listen, defaults.Listen)
	p.AdminListen = cmp.Or(p.AdminListen, defaults.Admin.Listen)
	p.WeChatBaseURL = cmp.Or(p.WeChatBaseURL, defaults.WeChat.BaseURL)
	p.AppID = cmp.Or(p.AppID, "wx0123456789abcdef")
	p.ClientID = cmp.Or(p.ClientID, "shop-mini")
	p.Audience = cmp.Or(p.Audience, "https://api.shop.example")

	var out bytes.Buffer
	if err := initTemplate.Execute(&out, p); err != nil {
		panic("config: template of the first config file: " + err.Error())
	}
	return out.Bytes()
}

// quote writes a value as JSON, which is YAML too, whatever is in it.
func quote(value string) (string, error) {
	raw, err := json.Marshal(value)
	return string(raw), err
}

var initTemplate = template.Must(template.New("config.yaml").Funcs(template.FuncMap{"quote": quote}).Parse(
	`# Configuration of wxidp. Every key is explained in config.example.yaml; keys
# left out have their defaults. A saved change is taken within two seconds.
# Check it first with: wxidp check --config config.yaml
# wxidp 的配置。保存后两秒内自动生效；先用 wxidp check 检查。

# The URL clients reach wxidp under, and the iss of every token. Off loopback
# it must be https.
issuer: {{quote .Issuer}}
listen: {{quote .Listen}}

# Behind a TLS proxy, name its network here.
trusted_proxies: []

admin:
  listen: {{quote .AdminListen}}
  socket: data/admin.sock

storage:
  driver: bolt
  bolt: { path: data/wxidp.db }

# Keep a copy of this file elsewhere: without it the data cannot be read.
# 请另存一份：没有它，数据无法解密。
master_key_file: data/master.key

wechat:
  base_url: {{quote .WeChatBaseURL}}
  apps:
    - appid: {{quote .AppID}}
{{- if .AppSecretFile}}
      secret_file: {{quote .AppSecretFile}}
{{- else}}
      secret: ${WECHAT_SECRET} # AppSecret, from the environment 小程序密钥
{{- end}}
{{- if .OpenPlatform}}
      open_platform: {{quote .OpenPlatform}}
{{- end}}
{{- with .Demo}}
    - appid: {{quote .AppID}}
      secret_file: {{quote .AppSecretFile}}
      open_platform: {{quote $.OpenPlatform}}
{{- end}}
{{- if .Demo}}

# Signing in with a browser by scanning a code with WeChat. 微信扫码登录
scan:
  appid: {{quote .AppID}}
{{- end}}

clients:
  # The mini-program. 小程序
  - client_id: {{quote .ClientID}}
    type: public
    wechat_appid: {{quote .AppID}}
    grant_types: [wechat_jscode, {{if .Demo}}wechat_phone, {{end}}refresh_token]
    id_token_signed_response_alg: ES256
    scopes: [openid, profile, {{if .Demo}}phone, {{end}}wechat, {{if .Demo}}roles, external_id, device.approve, {{end}}orders.read]
    default_scopes: [openid]
    audience: [{{quote .Audience}}]
{{- with .Demo}}

  # The second mini-program of the same Open Platform account. 同一开放平台下的第二个小程序
  - client_id: {{quote .ClientID}}
    type: public
    wechat_appid: {{quote .AppID}}
    grant_types: [wechat_jscode, wechat_phone, refresh_token]
    id_token_signed_response_alg: ES256
    scopes: [openid, profile, phone, wechat, roles, external_id, orders.read]
    default_scopes: [openid]
    audience: [{{quote $.Audience}}]
{{- if .WebSecretFile}}

  # A web application that signs people in with a browser. 网页应用
  - client_id: shop-web
    name: 小店网页版
    type: confidential
    client_secret_file: {{quote .WebSecretFile}}
    grant_types: [authorization_code, refresh_token]
    redirect_uris: ["http://127.0.0.1:3000/callback"]
    post_logout_redirect_uris: ["http://127.0.0.1:3000/"]
    consent: ask # skip is for your own, first-party clients
    scopes: [openid, profile, phone, offline_access]
    default_scopes: [openid]
{{- end}}

  # A device without a browser: people approve it on another one. 电视等设备
  - client_id: shop-tv
    name: 小店电视版
    type: public
    grant_types: ["urn:ietf:params:oauth:grant-type:device_code", refresh_token]
    id_token_signed_response_alg: ES256
    scopes: [openid, profile]
    default_scopes: [openid]
{{- end}}

  # A backend that asks wxidp about tokens. Make its secret with
  # openssl rand -base64 32, and give it in the environment.
  # 需要内省令牌的后端。
{{- if .IntrospectionSecretFile}}
  - client_id: orders-api
    type: confidential
    client_secret_file: {{quote .IntrospectionSecretFile}}
    grant_types: [client_credentials]
    scopes: [orders.read{{if .Demo}}, wechat.data{{end}}]
    default_scopes: [orders.read]
    audience: [{{quote .Audience}}]
    introspection: true
{{- else}}
  # - client_id: orders-api
  #   type: confidential
  #   client_secret: ${ORDERS_API_SECRET}
  #   grant_types: [client_credentials]
  #   scopes: [orders.read]
  #   audience: [{{quote .Audience}}]
  #   introspection: true
{{- end}}
`))

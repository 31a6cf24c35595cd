// What differs from one installation to another.

module.exports = {
  // wxidp, and this mini-program's client there. On a phone: https, and a request 合法域名.
  issuer: 'http://127.0.0.1:8080',
  clientId: 'shop-mini',
  scope: 'openid profile phone orders.read device.approve',

  // The orders API, examples/resource-server-node. On a phone: https, and a request 合法域名.
  api: 'http://127.0.0.1:3000',

  // Takes a picture (wx.uploadFile, name "file", with the access token) and answers {"url":"https://…"}. Without it the
  // picture stays on this phone.
  upload: '',

  // Who plays WeChat, so that this runs without an appid: `wxidp dev`. null: WeChat itself.
  simulator: { url: 'http://127.0.0.1:8090', appid: 'wx0123456789abcdef', user: 'alice' },
}

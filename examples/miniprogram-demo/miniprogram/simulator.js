// With a simulator in config.js, it gives the codes that WeChat gives otherwise. Only while developing.

const { simulator } = require('./config')

const develops = () => wx.getAccountInfoSync().miniProgram.envVersion === 'develop'

const simulated = !!simulator && develops()

/** A code that the simulated WeChat makes: at `login` or `phone`. */
function code(path) {
  return new Promise((resolve, reject) => wx.request({
    url: `${simulator.url}/control/${path}`,
    method: 'POST',
    header: { 'content-type': 'application/x-www-form-urlencoded' },
    data: { appid: simulator.appid, user: simulator.user },
    success: ({ statusCode, data }) => (statusCode === 200 ? resolve(data.code) : reject({ errMsg: `simulator: ${statusCode}` })),
    fail: reject,
  }))
}

module.exports = {
  simulated,
  phoneCode: () => code('phone'),

  /** The part of wx that the SDK needs; undefined: wx itself. */
  platform: simulated ? {
    login: ({ success, fail }) => { code('login').then((jsCode) => success({ code: jsCode }), fail) },
    request: (options) => wx.request(options),
    getStorage: (options) => wx.getStorage(options),
    setStorage: (options) => wx.setStorage(options),
    removeStorage: (options) => wx.removeStorage(options),
  } : undefined,
}

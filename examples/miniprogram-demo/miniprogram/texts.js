// What users read when something does not work. The messages of errors are for developers.

const sdk = require('wxidp-miniprogram')

const refusals = {
  account_bound: '该账号已绑定其他微信，请先在原微信中解绑',
  identity_bound: '当前微信已绑定其他账号，请先解绑',
  account_exists: '该手机号已属于其他账号，请用原来的微信登录，或绑定账号',
  access_denied: '当前微信无法登录，请联系客服',
  wrong_number: '数字不对，本次登录已取消，请重新扫码',
  ticket_expired: '二维码已失效，请刷新后重新扫码',
  ticket_used: '二维码已使用，请刷新后重新扫码',
  ticket_taken: '二维码已被他人扫描，请刷新后重新扫码',
}

/** refused is what an `invalid_grant` means where it was asked for. */
module.exports = function textOf(error, refused = '登录失败，请重试') {
  const { code, reason, retryAfter, requestId } = error
  if (error instanceof sdk.LoggedOut) return '请先登录'
  if (error instanceof sdk.AccountRequired) return '请先绑定账号'
  if (error instanceof sdk.LoginRefused || error instanceof sdk.ScanRefused) return refusals[reason] || refusals[code] || refused
  if (error instanceof sdk.RateLimited) return retryAfter ? `操作太频繁，请 ${retryAfter} 秒后再试` : '操作太频繁，请稍后再试'
  if (error instanceof sdk.NetworkError) return '网络不太好，请稍后再试'
  console.error(error)
  return requestId ? `服务暂时不可用，请稍后再试（${requestId}）` : '服务暂时不可用，请稍后再试'
}

// Every way to fail, as a class to tell it by.

import type { Response } from './platform'

interface Details {
  status?: number
  retryAfter?: number
  reason?: string
  requestId?: string
  cause?: unknown
}

/** Whatever `Auth` rejects with. `message` is for developers, in the language of `createAuth`. */
export class AuthError extends Error {
  /** The server's `error` (RFC 6749 §5.2), or of this package: `no_answer`, `wx_login`, `logged_out`. */
  code: string
  /** HTTP status, if the server answered. */
  status?: number
  /** Seconds to wait before another try. */
  retryAfter?: number
  /** Why more precisely, such as `identity_bound` of `already_bound`. */
  reason?: string
  /** `X-Request-Id` of the answer, which is in the server's log too. */
  requestId?: string
  /** What the platform said. */
  cause?: unknown

  constructor(code: string, message: string, details?: Details) {
    super(message)
    this.code = code
    Object.assign(this, details)
  }
}

/** WeChat or the server was not reached, or its answer was lost. */
export class NetworkError extends AuthError {}
/** This sign-in is refused: wrong password, bound elsewhere, barred by WeChat, disabled. */
export class LoginRefused extends AuthError {}
/** No account is bound to this WeChat user yet: ask for username and password, and call `login`. */
export class AccountRequired extends AuthError {}
/** Too many tries: wait for `retryAfter`. */
export class RateLimited extends AuthError {}
/** WeChat or the server is out of order; where `retryAfter` is known, wait. */
export class Unavailable extends AuthError {}
/** The screen cannot be signed in with this ticket any more, or the number was wrong: scan again. */
export class ScanRefused extends AuthError {}
/** `logout` was called: nothing signs in before `silentLogin`, `login` or `loginWithPhone`. */
export class LoggedOut extends AuthError {}
/** A fault of the configuration or of the calling code. */
export class Misconfigured extends AuthError {}

// minifying takes the names of classes away
const kinds: Record<string, { prototype: Error }> = { AuthError, NetworkError, LoginRefused, AccountRequired, RateLimited, Unavailable, ScanRefused, LoggedOut, Misconfigured }
for (const name in kinds) kinds[name].prototype.name = name

export type Language = 'zh-CN' | 'en'

const messages = {
  no_answer: ['没有收到认证服务器的有效应答：请检查网络和服务器域名配置', 'no valid answer from the issuer: check the network and the request domains'],
  wx_login: ['wx.login 失败', 'wx.login failed'],
  logged_out: ['已退出登录：请先调用 silentLogin、login 或 loginWithPhone', 'logged out: call silentLogin, login or loginWithPhone first'],
}

/** A text of this package, with what the platform said. */
export function message(code: keyof typeof messages, language: Language, cause?: any): string {
  const said = cause && (cause.errMsg || cause.message)
  return messages[code][language === 'en' ? 1 : 0] + (said ? ` (${said})` : '')
}

/** Header names come in any case. */
function header(answer: Response, name: string): string | undefined {
  const headers = answer.header || {}
  for (const key in headers) if (key.toLowerCase() === name) return String(headers[key])
  return undefined
}

/** The error that an answer of the server stands for. One without an OAuth `error` is not of wxidp: a gateway's, a captive portal's. */
export function refusal(answer: Response, language: Language): AuthError {
  const status = answer.statusCode
  const body = answer.data || {}
  const code: string = body.error
  const seconds = parseInt(header(answer, 'retry-after') || '', 10)
  const details: Details = { status, reason: body.reason, requestId: header(answer, 'x-request-id') }
  if (seconds >= 0) details.retryAfter = seconds
  const ours = typeof code === 'string'
  const Kind =
    status === 429 ? RateLimited
    : !ours ? NetworkError
    : status >= 500 ? Unavailable
    : code === 'account_required' ? AccountRequired
    : /^(invalid_grant|access_denied|already_bound|account_exists)$/.test(code) ? LoginRefused
    : /^(ticket_|wrong_number)/.test(code) ? ScanRefused
    : Misconfigured
  return ours ? new Kind(code, body.error_description || code, details) : new Kind('no_answer', `${message('no_answer', language)} (HTTP ${status})`, details)
}

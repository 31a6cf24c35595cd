// wxidp-miniprogram: the sign-in of a WeChat mini-program, kept alive.

export { createAuth } from './auth'
export {
  AccountRequired, AuthError, LoggedOut, LoginRefused, Misconfigured, NetworkError, RateLimited, ScanRefused, Unavailable,
} from './errors'
export type { Auth, Credentials, Events, Listener, Options, RequestOptions } from './auth'
export type { Language } from './errors'
export type { Callbacks, Platform, Response } from './platform'
export type { Scan } from './scan'

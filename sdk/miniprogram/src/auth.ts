// Who is signed in: the tokens, and the only places where they come and go.

import { type AuthError, type Language, LoggedOut, Misconfigured, NetworkError, message } from './errors'
import { type Callbacks, type Platform, type Response, call } from './platform'
import { type Scan, scan } from './scan'
import { type Server, post } from './server'
import { type Tokens, createStore, within } from './store'

export interface Options {
  /** Where wxidp is, such as `https://id.example.com`: a request 合法域名 of the mini-program. */
  issuer: string
  /** `client_id` of the mini-program at wxidp. */
  clientId: string
  /** Scopes, separated by spaces; without it the client's `default_scopes`. */
  scope?: string
  /** `wx`, `uni` or `Taro`; without it the global `wx`. */
  platform?: Platform
  /** Of error messages; without it `zh-CN`. */
  language?: Language
}

/** What proves more than `wx.login` does: an account's password, or the phone button's code, or both. */
export interface Credentials {
  username?: string
  password?: string
  /** `e.detail.code` of the phone number button: records the number. */
  phoneCode?: string
  /** Replaces a number that is known. */
  phoneChange?: boolean
}

/** The options of `wx.request`. Members that are not named here are passed on. */
export interface RequestOptions<T = any> extends Callbacks {
  url: string
  method?: string
  data?: any
  header?: Record<string, any>
  success?(answer: Response<T>): void
  [option: string]: any
}

export interface Events {
  /** Signed in through `wx.login`. */
  login: undefined
  /** The access token was renewed. */
  refresh: undefined
  /** `logout` was called. */
  logout: undefined
  /** Nobody could be signed in silently, or the server not be told of a logout. */
  error: AuthError
}

export type Listener<E extends keyof Events> = (detail: Events[E]) => void

export interface Auth {
  /** Signs in, without the user seeing anything; does nothing while a sign-in is there. */
  silentLogin(): Promise<void>
  /** An access token that is good for a while. Signs in or renews where needed. */
  getToken(): Promise<string>
  /**
   * `wx.request` with the access token. Resolves for every HTTP status, as `success` is called for every one; a 401 is
   * sent once more with a new token. Only for servers that may see the token.
   */
  request<T = any>(options: RequestOptions<T>): Promise<Response<T>>
  /** Binds this WeChat user to the account that username and password open, and signs in to it. */
  login(credentials: Credentials): Promise<void>
  /** Signs in to the account of a phone number (grant `wechat_phone`). code is `e.detail.code` of the button. */
  loginWithPhone(code: string): Promise<void>
  /** Asks who wants to be signed in elsewhere. ticket is `q` or `scene` of `onLoad`, or a typed user code. */
  approveScan(ticket: string): Promise<Scan>
  /** Forgets the sign-in and has the server end it. */
  logout(): Promise<void>
  on<E extends keyof Events>(event: E, listener: Listener<E>): void
  off<E extends keyof Events>(event: E, listener: Listener<E>): void
}

declare const wx: Platform | undefined

/** wx.login may take this long (ms). */
const loginTimeout = 10000
/** A refused silent sign-in is not tried again by itself for so long (ms): WeChat counts calls of wx.login. */
const refusalHolds = 60000
/** The same after a fault of the server (ms), and after no valid answer. */
const faultHolds = 5000
const lossHolds = 1500

export function createAuth(options: Options): Auth {
  const platform = options.platform || (typeof wx === 'undefined' ? undefined : wx)
  if (!platform) throw new Misconfigured('no_platform', '缺少 platform：wx、uni 或 Taro / platform is missing: wx, uni or Taro')
  if (!options.issuer) throw new Misconfigured('no_issuer', '缺少 issuer / issuer is missing')
  const { clientId, scope, language = 'zh-CN' } = options
  const issuer = options.issuer.replace(/\/+$/, '')
  const server: Server = { platform, issuer, language }
  const store = createStore(platform, `wxidp:${issuer}:${clientId}`)

  let tokens: Tokens | undefined
  let restored = false // whether the store has nothing newer
  let out = false // after a logout
  let logouts = 0
  let leaving = 0 // logouts that have not forgotten yet
  let silent: Promise<void> | undefined // what all who need a token wait for
  let refused: { error: AuthError; since: number; span: number } | undefined // the last silent sign-in
  let useless: string | undefined // a token that a backend refused though it was new
  let last: Promise<unknown> = Promise.resolve()
  const listeners: { [event: string]: Listener<any>[] | undefined } = {}

  function emit<E extends keyof Events>(event: E, detail?: Events[E]) {
    // as promises, so that what a listener throws is reported and disturbs nothing here
    for (const listener of listeners[event] || []) Promise.resolve(detail as any).then(listener)
  }

  /** Lets one thing at a time change who is signed in. */
  function inTurn(work: () => Promise<void>): Promise<void> {
    const done = last.then(work)
    last = done.catch(() => {})
    return done
  }

  function forget() {
    tokens = undefined
    store.clear()
  }

  /** Whether more is left of the access token than this part of a minute, or of a tenth of its life, if that is less. */
  const good = (part: number) => !!tokens && within(tokens.since, tokens.life - Math.min(60000, tokens.life / 10) * part)

  async function obtain(event: 'login' | 'refresh', form: object, header: object) {
    const since = Date.now()
    const answer = await post(server, '/oauth2/token', Object.assign({ client_id: clientId }, form), header,
      (body) => body && typeof body.access_token === 'string' && body.expires_in > 0)
    tokens = { access: answer.access_token, refresh: answer.refresh_token, since, life: answer.expires_in * 1000, scope }
    restored = true
    store.save(tokens)
    emit(event)
  }

  /** Signs in with wx.login. A refused code is replaced by as many others as allowed. */
  async function signIn(form: object, codes: number): Promise<void> {
    const { code } = await call(platform!, 'login', { timeout: loginTimeout }, loginTimeout * 2)
      .then((result) => (result.code ? result : Promise.reject(result)))
      .catch((cause) => { throw new NetworkError('wx_login', message('wx_login', language, cause), { cause }) })
    try {
      await obtain('login', Object.assign({ grant_type: 'wechat_jscode', js_code: code, scope }, form), { 'Idempotency-Key': unique() })
    } catch (error) {
      if (codes < 2 || error.code !== 'invalid_grant') throw error
      await signIn(form, codes - 1)
    }
  }

  async function renew() {
    if (!restored) {
      tokens = await store.load()
      restored = true
      if (tokens && tokens.scope !== scope) tokens = undefined
    }
    if (good(1)) return
    if (tokens && tokens.refresh) {
      try {
        return await obtain('refresh', { grant_type: 'refresh_token', refresh_token: tokens.refresh }, {})
      } catch (error) {
        if (error.status !== 400 || error instanceof NetworkError) throw error
        forget()
      }
    }
    await signIn({}, 2)
  }

  /** One renewal for all who ask meanwhile. */
  function renewed(): Promise<void> {
    if (refused && within(refused.since, refused.span)) return Promise.reject(refused.error)
    return silent || (silent = inTurn(renew).then(
      () => { silent = undefined },
      (error: AuthError) => {
        silent = undefined
        const wait = error.retryAfter
        const span =
          wait !== undefined ? wait * 1000
          : error instanceof NetworkError ? lossHolds
          : error.status! >= 500 ? faultHolds
          : refusalHolds
        refused = { error, since: Date.now(), span }
        emit('error', error)
        throw error
      },
    ))
  }

  async function getToken(): Promise<string> {
    if (!out && (leaving || !good(1))) {
      const renewal = renewed()
      if (!leaving && good(0.5)) renewal.catch(() => {}) // nobody has to wait for it yet
      else await renewal
    }
    if (out || !tokens) throw new LoggedOut('logged_out', message('logged_out', language))
    return tokens.access
  }

  async function send(options: RequestOptions): Promise<Response> {
    const header = Object.assign({}, options.header)
    for (const name in header) if (name.toLowerCase() === 'authorization') delete header[name]
    const attempt = (token: string): Promise<Response> =>
      call(platform!, 'request', Object.assign({}, options, {
        header: Object.assign({}, header, { Authorization: 'Bearer ' + token }),
      })).catch((cause) => { throw new NetworkError('no_answer', message('no_answer', language, cause), { cause }) })

    const token = await getToken()
    const answer = await attempt(token)
    if (answer.statusCode !== 401) return answer
    // unless another request has renewed it already, or renewing is known not to help
    if (tokens && tokens.access === token && token !== useless) tokens.life = 0
    const next = await getToken()
    if (next === token) return answer
    const second = await attempt(next)
    if (second.statusCode === 401) useless = next
    return second
  }

  function request(options: RequestOptions): Promise<Response> {
    const sent = send(options)
    const { success, fail, complete } = options
    if (success || fail || complete) {
      const then = (callback?: (result: any) => void) => (result: any) => {
        if (callback) callback(result)
        if (complete) complete(result)
      }
      sent.then(then(success), then(fail))
    }
    return sent
  }

  async function explicit(form: object) {
    const before = logouts
    await inTurn(() => signIn(form, 1))
    refused = undefined
    if (logouts === before) out = false
  }

  return {
    async silentLogin() {
      out = false
      if (refused && !refused.error.retryAfter) refused = undefined
      await getToken()
    },
    getToken,
    request,
    login: ({ username, password, phoneCode, phoneChange }) =>
      explicit({ username, password, phone_code: phoneCode, phone_change: phoneChange }),
    loginWithPhone: (code) => explicit({ grant_type: 'wechat_phone', phone_code: code }),
    approveScan: (ticket) => scan(server, request, ticket),
    logout() {
      out = true
      logouts++
      leaving++
      silent = undefined
      return inTurn(async () => {
        const ended = restored ? tokens : await store.load()
        restored = true
        forget()
        leaving--
        emit('logout')
        if (ended) {
          await post(server, '/oauth2/revoke', { client_id: clientId, token: ended.refresh || ended.access }, {}, () => true)
            .catch((error) => emit('error', error))
        }
      })
    },
    on(event, listener) {
      listeners[event] = (listeners[event] || []).concat(listener)
    },
    off(event, listener) {
      listeners[event] = (listeners[event] || []).filter((other) => other !== listener)
    },
  }
}

/** Tells one sign-in from others. It is no secret: the js_code beside it is. */
function unique(): string {
  const part = () => Math.random().toString(36).slice(2)
  return Date.now().toString(36) + part() + part()
}

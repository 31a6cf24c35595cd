// Requests to wxidp itself.

import { AuthError, type Language, NetworkError, message, refusal } from './errors'
import { type Platform, type Response, call, sleep } from './platform'
import { within } from './store'

/** One request to wxidp waits this long (ms). */
const timeout = 10000
/** What a platform may queue or delay beyond it: ten requests of the mini-program go out at once, others wait. */
const queueing = 20000
/** A lost answer is fetched by sending again within this time (ms) after the first: below the server's refresh_grace of 20 s and its 60 s for a repeated sign-in. */
const repeatWithin = 15000
const sends = 3
/** Longer waits (s) are left to the caller. */
const patience = 5

export interface Server {
  platform: Platform
  issuer: string
  language: Language
}

export const formType = { 'content-type': 'application/x-www-form-urlencoded' }

/** Encodes a form: not every platform does, and not all alike. What is undefined is left out. */
export function encode(form: Record<string, any>): string {
  return Object.keys(form)
    .filter((name) => form[name] !== undefined)
    .map((name) => name + '=' + encodeURIComponent(form[name]))
    .join('&')
}

/**
 * Posts a form and returns the body of the answer, once accepts() likes it. A request whose answer was lost is sent again
 * as it was: the server knows a sign-in by its Idempotency-Key and a refresh by its token, and answers what it had answered.
 */
export async function post(server: Server, path: string, form: object, header: object, accepts: (body: any) => unknown): Promise<any> {
  const options = {
    url: server.issuer + path,
    method: 'POST',
    timeout,
    header: Object.assign({}, formType, header),
    data: encode(Object.assign({ ui_locales: server.language }, form)),
  }
  const start = Date.now()
  for (let sent = 1; ; sent++) {
    let error: AuthError
    try {
      const answer = await call<Response>(server.platform, 'request', options, timeout + queueing)
      if (answer.statusCode === 200 && accepts(answer.data)) return answer.data
      error = refusal(answer, server.language)
    } catch (cause) {
      error = new NetworkError('no_answer', message('no_answer', server.language, cause), { cause })
    }
    const wait = error.retryAfter
    const soon = wait === undefined ? error instanceof NetworkError : wait <= patience
    if (!soon || sent === sends || !within(start, repeatWithin)) throw error
    await sleep(Math.max((wait || 0) * 1000, 300 * sent) * (1 + Math.random() / 2))
    // a mini-program in the background sleeps longer than it asked for
    if (!within(start, repeatWithin)) throw error
  }
}

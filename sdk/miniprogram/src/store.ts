// The tokens on the device: one key, one JSON text.

import { type Platform, call } from './platform'

export interface Tokens {
  access: string
  refresh?: string
  /** When the access token was asked for, by this device's clock (ms). */
  since: number
  /** How long it lives from then (ms); 0 once a backend has refused it. */
  life: number
  /** The scope that was asked for: another one takes another sign-in. */
  scope?: string
}

/** Whether a span that began at since is not over. A clock that was set back says no. */
export function within(since: number, span: number): boolean {
  const age = Date.now() - since
  return age >= 0 && age < span
}

const limit = 3000 // ms

export function createStore(platform: Platform, key: string) {
  let last: Promise<unknown> = Promise.resolve()
  // one after the other, so that the last one wins; what cannot be stored is signed in again at the next launch
  const write = (work: () => Promise<unknown>) => (last = last.then(work).catch(() => {}))

  // encrypted from base library 2.21.3 on (older ones ignore it); plain where the platform cannot
  const get = (encrypt: boolean) => call(platform, 'getStorage', { key, encrypt }, limit).then(parse)
  const set = (data: string, encrypt: boolean) => call(platform, 'setStorage', { key, data, encrypt }, limit)

  return {
    /** What was stored; undefined where there is nothing, or no JSON. */
    load: (): Promise<Tokens | undefined> => get(true).catch(() => get(false)).catch(() => undefined),
    save(tokens: Tokens) {
      const data = JSON.stringify(tokens)
      write(() => set(data, true).catch(() => set(data, false)))
    },
    clear() {
      write(() => call(platform, 'removeStorage', { key }, limit))
    },
  }
}

// Members are not looked at: what makes no sense is too old, of no scope or refused, and all of these end in a new sign-in.
function parse({ data }: { data: any }): Tokens {
  const { access, refresh, since, life, scope } = JSON.parse(data)
  return { access, refresh, since, life, scope }
}

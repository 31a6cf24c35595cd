// The part of wx, uni or Taro that this package calls.

/** What an answer of the platform's `request` has. `success` gets one for every HTTP status. */
export interface Response<T = any> {
  statusCode: number
  data: T
  header: Record<string, any>
}

export interface Callbacks<T = any> {
  success?(result: T): void
  fail?(reason: any): void
  complete?(result: any): void
}

/** `wx`, `uni` and `Taro` fit. Only functions that answer through callbacks are used, which all three have. */
export interface Platform {
  login(options: { timeout: number } & Callbacks<{ code: string }>): unknown
  request(options: { url: string } & Callbacks<Response>): unknown
  getStorage(options: { key: string; encrypt?: boolean } & Callbacks<{ data: any }>): unknown
  setStorage(options: { key: string; data: string; encrypt?: boolean } & Callbacks): unknown
  removeStorage(options: { key: string } & Callbacks): unknown
}

/**
 * Calls a function of the platform as a promise. limit (ms) is for calls that others wait for: a platform that never
 * answers must not stop them all.
 */
export function call<T = any>(platform: Platform, name: keyof Platform, options: object, limit?: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = limit && setTimeout(() => reject({ errMsg: name + ':fail no answer' }), limit)
    const end = (settle: (result: any) => void) => (result: any) => {
      clearTimeout(timer)
      settle(result)
    }
    const promise = platform[name](Object.assign({}, options, { success: end(resolve), fail: end(reject), complete() {} }) as any) as any
    // Taro rejects a promise as well, which nobody else would catch
    if (promise && promise.catch) promise.catch(() => {})
  })
}

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

declare function setTimeout(run: () => void, ms: number): any
declare function clearTimeout(timer: any): void

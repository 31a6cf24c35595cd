// A phone with WeChat: a stand-in for wx, and launches of a mini-program that has nothing but what WeChat gives it.

import { readFileSync } from 'node:fs'
import vm from 'node:vm'

const script = new vm.Script(`(function (module, exports) {${readFileSync(new URL('../miniprogram_dist/index.js', import.meta.url), 'utf8')}\n})`)

/** What may happen to a request on its way. send lets it through. */
export const faults = {
  unreachable: () => Promise.reject({ errMsg: 'request:fail ' }),
  answerLost: async (send) => {
    await send()
    throw { errMsg: 'request:fail interrupted' }
  },
  silence: () => new Promise(() => {}),
  answer: (statusCode, data = '<html>', header = {}) => async () => ({ statusCode, data, header }),
  /** The server has done its work, but a gateway gives up. */
  gatewayTimeout: async (send) => {
    await send()
    return { statusCode: 504, data: '<html>', header: {} }
  },
}

let phones = 0

export class Phone {
  ahead = 0 // of the right time, ms
  logins = 0
  sent = [] // requests: path, form, header, answer
  stored = new Map() // key -> { data, encrypted }
  encryption = 'works' // or unknown: an old base library; or fails
  #plans = []
  #busy = 0
  #queue = []

  constructor(world, user) {
    this.world = world
    this.user = `${user}-${++phones}`
    this.ip = `203.0.113.${phones % 250 + 1}`
  }

  /** Plans what happens to the next requests to path, one act each. */
  next(path, ...acts) {
    for (const act of acts) this.#plans.push({ path, act })
  }

  /** Replaces functions of wx. */
  override = {}

  /** Starts the mini-program anew, and returns what it gets from createAuth and the package itself. */
  launch(options = {}, { dress = (wx) => wx } = {}) {
    const { world } = this
    const sandbox = {
      setTimeout: world.setTimeout,
      clearTimeout: world.clearTimeout,
      Date: { now: () => world.now() + this.ahead },
      Proxy: undefined,
      WebAssembly: undefined,
      wx: dress({ ...this.#wx, ...this.override }),
    }
    const context = vm.createContext(sandbox, { codeGeneration: { strings: false, wasm: false } })
    const module = { exports: {} }
    script.runInContext(context)(module, module.exports)
    this.sdk = module.exports
    return module.exports.createAuth({ issuer: world.issuer, clientId: 'shop-mini', scope: 'openid profile', ...options })
  }

  count(path, grant) {
    return this.sent.filter((request) => request.path === path && (!grant || request.form.get('grant_type') === grant)).length
  }

  /** How often wx.login, a sign-in and a refresh happened. */
  get calls() {
    return [this.logins, this.count('/oauth2/token', 'wechat_jscode'), this.count('/oauth2/token', 'refresh_token')]
  }

  /** The tokens on the phone. */
  get kept() {
    const [entry] = this.stored.values()
    return entry && JSON.parse(entry.data)
  }

  #answer(options, work) {
    work().then(
      (result) => { options.success?.(result); options.complete?.(result) },
      (reason) => { options.fail?.(reason); options.complete?.(reason) },
    )
  }

  #wx = {
    login: (options) => this.#answer(options, async () => {
      this.logins++
      await this.world.sleep(20)
      return { code: await this.world.code(this.user), errMsg: 'login:ok' }
    }),
    request: (options) => {
      this.#answer(options, async () => {
        // ten at once, the others wait
        if (this.#busy === 10) await new Promise((go) => this.#queue.push(go))
        this.#busy++
        try {
          return await this.#send(options)
        } finally {
          this.#busy--
          this.#queue.shift()?.()
        }
      })
      return { abort() {} }
    },
    getStorage: ({ key, encrypt = false, ...callbacks }) => this.#answer(callbacks, async () => {
      const entry = this.stored.get(key)
      if (!entry) throw { errMsg: 'getStorage:fail data not found' }
      if (entry.encrypted !== this.#encrypts(encrypt)) throw { errMsg: 'getStorage:fail decrypt' }
      return { data: entry.data }
    }),
    setStorage: ({ key, data, encrypt = false, ...callbacks }) => this.#answer(callbacks, async () => {
      await this.world.sleep(2)
      this.stored.set(key, { data, encrypted: this.#encrypts(encrypt) })
    }),
    removeStorage: ({ key, ...callbacks }) => this.#answer(callbacks, async () => { this.stored.delete(key) }),
  }

  #encrypts(asked) {
    if (asked && this.encryption === 'fails') throw { errMsg: 'storage:fail encrypt' }
    return asked && this.encryption === 'works'
  }

  async #send({ url, method = 'GET', header = {}, data, timeout = 60000 }) {
    const path = url.slice(this.world.issuer.length)
    const request = { path, method, header, data, form: new URLSearchParams(typeof data === 'string' ? data : '') }
    this.sent.push(request)
    const send = async () => (request.answer = await this.world.exchange({ path, method, data, header: { ...header, 'X-Forwarded-For': this.ip } }))
    const plan = this.#plans.findIndex((each) => each.path === path)
    const work = plan < 0 ? send() : this.#plans.splice(plan, 1)[0].act(send)
    if (work.catch) work.catch(() => {})
    let timer
    const late = new Promise((_, reject) => { timer = this.world.setTimeout(() => reject({ errMsg: 'request:fail timeout' }), timeout) })
    return Promise.race([work, late]).finally(() => this.world.clearTimeout(timer))
  }
}

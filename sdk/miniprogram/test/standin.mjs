// A stand-in for wxidp: as much of docs/token-endpoint.md as a mini-program can tell, in a time of its own that passes
// at once. Nothing waits for a real clock, and a promise that nobody would ever settle is found.

const life = 900 // s
const grace = 20000 // ms

export class StandIn {
  issuer = 'https://id.example.com'
  #time = 1800000000000
  #timers = new Set()
  #number = 0
  #codes = new Map() // js_code -> user
  #taps = new Map()
  #accounts = new Map() // username -> { password, sub }
  #bound = new Map() // user -> sub
  #families = new Map() // id -> { sub, generation, rotated, revoked, scope }
  #once = new Map() // Idempotency-Key -> { form, family }
  #screens = new Map()
  #down = false

  now = () => this.#time

  setTimeout = (run, ms) => {
    const timer = { at: this.#time + ms, run }
    this.#timers.add(timer)
    return timer
  }

  clearTimeout = (timer) => { this.#timers.delete(timer) }

  sleep = (ms) => new Promise((done) => this.setTimeout(done, ms))

  /** Lets time pass until the promise is settled. */
  async run(promise) {
    let settled = false
    const end = () => { settled = true }
    promise.then(end, end)
    for (;;) {
      await new Promise(setImmediate)
      if (settled) return promise
      const [next] = [...this.#timers].sort((a, b) => a.at - b.at)
      if (!next) throw new Error('nothing is left that could settle this promise')
      this.#timers.delete(next)
      this.#time = Math.max(this.#time, next.at)
      next.run()
    }
  }

  async start() { return this }
  async stop() {}
  async crash() { this.#down = true }
  async restart() { this.#down = false }

  async code(user) { return this.#made(this.#codes, user) }
  async tap(user) { return this.#made(this.#taps, user) }
  async account(username, password) { this.#accounts.set(username, { password, sub: `account-${username}` }) }

  /** A device that waits to be let in. */
  async screen() {
    const ticket = `${this.issuer}/scan?ticket=${++this.#number}`
    const screen = { state: 'authorization_pending' }
    this.#screens.set(ticket, screen)
    return { ticket, number: 'MJHT', state: async () => screen.state }
  }

  #made(table, user) {
    const code = `code-${++this.#number}`
    table.set(code, user)
    return code
  }

  async exchange({ path, header, data }) {
    await this.sleep(30)
    if (this.#down) throw { errMsg: 'request:fail connection refused' }
    const form = Object.fromEntries(new URLSearchParams(typeof data === 'string' ? data : ''))
    const token = (header.Authorization || '').replace(/^Bearer /, '')
    const [statusCode, body, more] = this.#route(path, form, header, token)
    await this.sleep(30)
    return { statusCode, data: body, header: { 'X-Request-Id': `request-${++this.#number}`, ...more } }
  }

  #route(path, form, header, token) {
    if (path === '/oauth2/token') {
      if (form.grant_type === 'refresh_token') return this.#refresh(form)
      return this.#signIn(form, header['Idempotency-Key'])
    }
    if (path === '/oauth2/revoke') {
      const [id, number] = form.token.split('.')
      const family = this.#families.get(id)
      if (!family) return [200, '']
      if (number.startsWith('a')) family.denied.add(form.token)
      else family.revoked = true
      return [200, '']
    }
    const family = this.#families.get(token.split('.')[0])
    if (!family || family.revoked || family.denied.has(token) || this.#time >= family.issued.get(token) + life * 1000) {
      return [401, { error: 'invalid_token' }]
    }
    if (path === '/oauth2/userinfo') return [200, { sub: family.sub, ...(family.phone && { phone_number: family.phone }) }]
    return this.#device(path.slice('/device/'.length), form)
  }

  #refuse(error, zh, more) {
    return [400, { error, error_description: zh, ...more }]
  }

  #signIn(form, key) {
    const whole = JSON.stringify(form)
    const before = this.#once.get(key)
    if (before) {
      if (before.whole !== whole) return this.#refuse('invalid_request', '参数不同')
      return this.#tokens(before.family)
    }
    const user = this.#codes.get(form.js_code)
    this.#codes.delete(form.js_code)
    if (!user) return this.#refuse('invalid_grant', '这个 js_code 无效')
    const account = this.#accounts.get(form.username)
    if (form.username && (!account || account.password !== form.password)) return this.#refuse('invalid_grant', '用户名或密码不对')
    if (account) this.#bound.set(user, account.sub)
    if (!this.#bound.has(user)) {
      if (form.client_id === 'shop-strict') return this.#refuse('account_required', '请先绑定账号')
      this.#bound.set(user, `sub-${user}`)
    }
    const phone = form.phone_code && this.#taps.get(form.phone_code)
    if (form.phone_code && !phone) return this.#refuse('invalid_grant', '这个 phone_code 无效')
    const family = `family${++this.#number}`
    this.#families.set(family, {
      sub: this.#bound.get(user), phone, generation: 0, rotated: 0, revoked: false, scope: form.scope, issued: new Map(), denied: new Set(),
    })
    this.#once.set(key, { whole, family })
    return this.#tokens(family)
  }

  #refresh({ refresh_token: token }) {
    const [id, generation] = token.split('.')
    const family = this.#families.get(id)
    if (!family || family.revoked) return this.#refuse('invalid_grant', '请重新登录')
    if (Number(generation) === family.generation) {
      family.generation++
      family.rotated = this.#time
    } else if (Number(generation) !== family.generation - 1 || this.#time - family.rotated > grace) {
      family.revoked = true
      return this.#refuse('invalid_grant', '请重新登录')
    }
    return this.#tokens(id)
  }

  #tokens(id) {
    const family = this.#families.get(id)
    const access = `${id}.a${++this.#number}`
    family.issued.set(access, this.#time)
    return [200, { access_token: access, token_type: 'Bearer', expires_in: life, scope: family.scope, refresh_token: `${id}.${family.generation}` }]
  }

  #device(what, { ticket, number }) {
    const screen = this.#screens.get(ticket)
    if (!screen) return [410, { error: 'ticket_expired', error_description: '二维码已失效' }]
    if (what === 'context') {
      return [200, {
        kind: 'device', client_id: 'shop-tv', client_name: '小店电视版', place: '127.0.0.*', started_at: Math.floor(this.#time / 1000),
        expires_in: 600, scopes: ['openid'], choices: ['KLXB', 'MJHT', 'ZRTD'], number_entry: false,
      }]
    }
    if (what === 'approve' && number !== 'MJHT') {
      screen.state = 'access_denied'
      return [409, { error: 'wrong_number', error_description: '数字不对' }]
    }
    screen.state = what === 'approve' ? 'approved' : 'access_denied'
    return [200, { approved: what === 'approve', kind: 'device', client_name: '小店电视版' }]
  }
}

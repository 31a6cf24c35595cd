// The real program and its WeChat simulator, with the interface of StandIn. Time is real here; only phones can be ahead.

import { randomBytes } from 'node:crypto'
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Program, appID, binary, freePorts } from '../../../e2e/lib/server.js'

const config = (ports) => `issuer: http://127.0.0.1:${ports.issuer}
listen: 127.0.0.1:${ports.issuer}
admin: { listen: "127.0.0.1:${ports.admin}" }
trusted_proxies: [127.0.0.1/32] # every phone says by X-Forwarded-For where it is
scan: { appid: ${appID} }
wechat:
  base_url: http://127.0.0.1:${ports.weChat}
  apps:
    - { appid: ${appID}, secret_file: secrets/wechat }
clients:
  - client_id: shop-mini
    name: 小店
    type: public
    wechat_appid: ${appID}
    grant_types: [wechat_jscode, wechat_phone, refresh_token]
    scopes: [openid, profile, phone, device.approve]
    default_scopes: [openid]
  - client_id: shop-strict
    name: 小店会员版
    type: public
    wechat_appid: ${appID}
    grant_types: [wechat_jscode, refresh_token]
    auto_create: false
    scopes: [openid, profile]
  - client_id: shop-tv
    name: 小店电视版
    type: public
    grant_types: ["urn:ietf:params:oauth:grant-type:device_code"]
    id_token_signed_response_alg: ES256
    scopes: [openid, profile]
`

const answers = async (url) => (await fetch(url)).ok

export class Real {
  now = () => Date.now()
  setTimeout = setTimeout
  clearTimeout = clearTimeout
  sleep = sleep
  run = (promise) => promise

  async start() {
    this.dir = await mkdtemp(join(tmpdir(), 'wxidp-sdk-'))
    const [issuer, admin, weChat] = await freePorts(3)
    this.ports = { issuer, admin, weChat }
    this.issuer = `http://127.0.0.1:${issuer}`
    this.simulator = `http://127.0.0.1:${weChat}`
    const secret = randomBytes(24).toString('base64url')
    for (const folder of ['data', 'secrets']) await mkdir(join(this.dir, folder), { mode: 0o700 })
    for (const [name, content] of [
      ['data/master.key', randomBytes(32).toString('base64')], ['secrets/wechat', secret], ['config.yaml', config(this.ports)],
    ]) await writeFile(join(this.dir, name), content, { mode: 0o600 })
    this.path = await binary()
    this.weChat = new Program(this.path, ['simulator', '--listen', `127.0.0.1:${weChat}`, '--app', `${appID}:${secret}`])
    await this.weChat.until('ready', () => answers(`${this.simulator}/control/`))
    await this.restart()
    return this
  }

  async restart() {
    this.program = new Program(this.path, ['serve', '--config', join(this.dir, 'config.yaml'), '--drain', '0s'])
    await this.program.until('ready', () => answers(`http://127.0.0.1:${this.ports.admin}/readyz`))
  }

  async crash() {
    this.program.kill()
    await this.program.exited
    process.off('exit', this.program.kill)
  }

  async stop() {
    await this.program.stop()
    await this.weChat.stop()
    await rm(this.dir, { recursive: true })
  }

  async exchange({ path, method, header, data }) {
    let response
    try {
      response = await fetch(this.issuer + path, { method, headers: header, body: data })
    } catch (error) {
      throw { errMsg: `request:fail ${error.cause?.code}` }
    }
    const text = await response.text()
    let body = text
    try { body = JSON.parse(text) } catch { /* as wx does */ }
    return { statusCode: response.status, data: body, header: Object.fromEntries(response.headers) }
  }

  async #control(path, form) {
    const response = await fetch(`${this.simulator}/control/${path}?format=text`, { method: 'POST', body: new URLSearchParams(form) })
    if (!response.ok) throw new Error(`simulator: ${response.status} ${await response.text()}`)
    return (await response.text()).trim()
  }

  code(user) { return this.#control('login', { appid: appID, user }) }
  tap(user) { return this.#control('phone', { appid: appID, user, phone: String(13800000000 + Number(user.split('-').pop())) }) }

  async account(username, password) {
    const adding = promisify(execFile)(this.path, ['users', 'add', '--username', username, '--config', join(this.dir, 'config.yaml')])
    adding.child.stdin.end(`${password}\n`)
    await adding
  }

  async #post(path, form) {
    return (await fetch(this.issuer + path, { method: 'POST', body: new URLSearchParams(form) })).json()
  }

  async screen() {
    const device = await this.#post('/oauth2/device_authorization', { client_id: 'shop-tv', scope: 'openid' })
    return {
      ticket: device.user_code,
      number: device.user_code.split('-')[1],
      state: async () => {
        const answer = await this.#post('/oauth2/token', {
          client_id: 'shop-tv', device_code: device.device_code, grant_type: 'urn:ietf:params:oauth:grant-type:device_code',
        })
        return answer.access_token ? 'approved' : answer.error
      },
    }
  }
}

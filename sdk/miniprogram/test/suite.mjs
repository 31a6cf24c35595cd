// What the package promises, one sentence each. world is a StandIn or a Real one.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Phone, faults } from './phone.mjs'

const minute = 60000
const hour = 60 * minute
const token = '/oauth2/token'
const revoke = '/oauth2/revoke'
const times = (count, work) => Promise.all(Array.from({ length: count }, work))

export function suite(world) {
  const userinfo = `${world.issuer}/oauth2/userinfo`

  /** One test with a phone of its own; all promises in it settle, or the test fails. */
  const promise = (sentence, body) => test(sentence, { timeout: 60000 }, () => {
    const phone = new Phone(world, 'user')
    return world.run(body(phone, (auth) => auth.request({ url: userinfo })))
  })

  /** Has the server end a token, behind the mini-program's back. */
  const revoked = (value, client = 'shop-mini') => world.exchange({
    path: revoke, method: 'POST', header: { 'content-type': 'application/x-www-form-urlencoded' }, data: `client_id=${client}&token=${value}`,
  })

  /** Lets the storage, which nobody waits for, finish. */
  const stored = () => world.sleep(30)

  /** Collects what nobody catches while work runs, which the test runner would take for a failure. */
  const unhandled = async (work) => {
    const before = process.listeners('unhandledRejection')
    const reasons = []
    process.removeAllListeners('unhandledRejection').on('unhandledRejection', (reason) => reasons.push(reason.message || reason))
    try {
      await work()
      await world.sleep(20)
    } finally {
      process.removeAllListeners('unhandledRejection')
      for (const listener of before) process.on('unhandledRejection', listener)
    }
    return reasons
  }

  /** The error of a promise that must be rejected, which must be of that class. */
  const refused = async (phone, Kind, rejected) => {
    const error = await rejected.then(() => assert.fail(`${Kind} was expected`), (reason) => reason)
    assert.ok(error instanceof phone.sdk[Kind] && error instanceof phone.sdk.AuthError, `${Kind} was expected: ${error.stack}`)
    assert.equal(error.name, Kind)
    return error
  }

  // ---- launch

  promise('twenty requests at launch make one wx.login and one token request', async (phone, get) => {
    const auth = phone.launch()
    const answers = await times(20, () => get(auth))
    assert.ok(answers.every(({ statusCode, data }) => statusCode === 200 && data.sub === answers[0].data.sub))
    assert.deepEqual(phone.calls, [1, 1, 0])
  })

  promise('a launch with a good token asks nobody', async (phone, get) => {
    await phone.launch().silentLogin()
    await stored()
    const auth = phone.launch()
    await times(5, () => auth.silentLogin())
    assert.equal((await get(auth)).statusCode, 200)
    assert.deepEqual(phone.calls, [1, 1, 0])
  })

  promise('a launch with an expired token refreshes it, without wx.login', async (phone) => {
    await phone.launch().silentLogin()
    await stored()
    phone.ahead += 20 * minute
    const auth = phone.launch()
    await times(20, () => auth.getToken())
    assert.deepEqual(phone.calls, [1, 1, 1])
  })

  promise('other scopes than those of the stored sign-in take another one', async (phone) => {
    await phone.launch().silentLogin()
    await stored()
    await phone.launch({ scope: 'openid phone' }).silentLogin()
    await stored()
    assert.deepEqual(phone.calls, [2, 2, 0])
    assert.equal(phone.stored.size, 1)
  })

  // ---- renewal

  promise('a token is renewed before it expires, and nobody waits for it at first', async (phone) => {
    const auth = phone.launch()
    const first = await auth.getToken()
    phone.ahead += 14 * minute + 10000
    const refreshed = new Promise((done) => auth.on('refresh', done))
    assert.equal(await auth.getToken(), first)
    await refreshed
    const second = await auth.getToken()
    assert.notEqual(second, first)
    phone.ahead += 14 * minute + 40000
    const third = await auth.getToken()
    assert.notEqual(third, second)
    assert.deepEqual(phone.calls, [1, 1, 2])
  })

  promise('a renewal that fails early disturbs nobody', async (phone, get) => {
    const auth = phone.launch()
    await auth.silentLogin()
    phone.ahead += 14 * minute + 10000
    phone.next(token, ...Array(3).fill(faults.unreachable))
    const failed = new Promise((done) => auth.on('error', done))
    assert.equal((await get(auth)).statusCode, 200)
    assert.equal((await failed).code, 'no_answer')
  })

  promise('twenty refusals of one token make one refresh', async (phone, get) => {
    const auth = phone.launch()
    const before = await auth.getToken()
    await revoked(before)
    const answers = await times(20, () => get(auth))
    assert.ok(answers.every(({ statusCode }) => statusCode === 200))
    assert.deepEqual(phone.calls, [1, 1, 1])
  })

  promise('a late refusal of an old token makes no refresh', async (phone, get) => {
    const auth = phone.launch()
    const before = await auth.getToken()
    await revoked(before)
    let release
    const held = new Promise((go) => { release = go })
    phone.next('/oauth2/userinfo', async (send) => {
      const answer = await send()
      await held
      return answer
    })
    const late = get(auth)
    assert.equal((await get(auth)).statusCode, 200)
    release()
    assert.equal((await late).statusCode, 200)
    assert.deepEqual(phone.calls, [1, 1, 1])
  })

  promise('a server that refuses every token gets one more request and makes one refresh', async (phone, get) => {
    const auth = phone.launch()
    phone.next('/oauth2/userinfo', ...Array(10).fill(faults.answer(401, { error: 'mine' })))
    for (let i = 0; i < 5; i++) assert.equal((await get(auth)).data.error, 'mine')
    assert.equal(phone.count('/oauth2/userinfo'), 6)
    assert.deepEqual(phone.calls, [1, 1, 1])
  })

  promise('a refused refresh makes one wx.login', async (phone, get) => {
    const auth = phone.launch()
    await auth.silentLogin()
    await stored()
    await revoked(phone.kept.refresh)
    const answers = await times(20, () => get(auth))
    assert.ok(answers.every(({ statusCode }) => statusCode === 200))
    assert.deepEqual(phone.calls, [2, 2, 1])
  })

  promise('a refused refresh token is not sent again', async (phone, get) => {
    await phone.launch().silentLogin()
    await stored()
    await revoked(phone.kept.refresh)
    phone.ahead += 20 * minute
    let down = true
    const auth = phone.launch({}, { dress: (wx) => ({ ...wx, login: (options) => (down ? options.fail({ errMsg: 'fail' }) : wx.login(options)) }) })
    await refused(phone, 'NetworkError', get(auth))
    down = false
    phone.ahead += 2000
    assert.equal((await get(auth)).statusCode, 200)
    assert.deepEqual(phone.calls, [2, 2, 1])
  })

  // ---- failure

  promise('a failure rejects all who wait, once, and the next one succeeds', async (phone, get) => {
    const auth = phone.launch()
    const events = []
    auth.on('error', (error) => events.push(error.code))
    phone.next(token, ...Array(3).fill(faults.unreachable))
    const failures = await times(20, () => refused(phone, 'NetworkError', get(auth)))
    assert.ok(failures.every(({ code, status, message }) => code === 'no_answer' && status === undefined && /认证服务器/.test(message)))
    assert.deepEqual(events, ['no_answer'])
    phone.ahead += 2000
    assert.equal((await get(auth)).statusCode, 200)
    assert.deepEqual(phone.calls, [2, 4, 0])
  })

  promise('a wx.login that fails, or gives no code, is a NetworkError', async (phone) => {
    for (const login of [
      ({ fail }) => fail({ errMsg: 'login:fail timeout', errno: 5 }),
      ({ success }) => success({ errMsg: 'login:ok' }),
      () => { throw new TypeError('no login') },
    ]) {
      phone.override = { login }
      const error = await refused(phone, 'NetworkError', phone.launch().silentLogin())
      assert.equal(error.code, 'wx_login')
      assert.ok(error.cause)
    }
    phone.override = {}
    await phone.launch().silentLogin()
    await stored()
  })

  promise('a refused code is replaced once', async (phone) => {
    phone.next(token, faults.answer(400, { error: 'invalid_grant' }))
    await phone.launch().silentLogin()
    await stored()
    assert.deepEqual(phone.calls, [2, 2, 0])
    const [one, two] = phone.sent
    assert.notEqual(one.form.get('js_code'), two.form.get('js_code'))
    assert.notEqual(one.header['Idempotency-Key'], two.header['Idempotency-Key'])
  })

  promise('a refused sign-in is not tried again by itself, but when asked to', async (phone, get) => {
    const auth = phone.launch()
    phone.next(token, faults.answer(400, { error: 'access_denied', reason: 'wechat_risk_user', error_description: '不行' }, { 'X-REQUEST-ID': 'r1' }))
    for (let i = 0; i < 10; i++) {
      const { code, status, reason, message, requestId } = await refused(phone, 'LoginRefused', get(auth))
      assert.deepEqual([code, status, reason, message, requestId], ['access_denied', 400, 'wechat_risk_user', '不行', 'r1'])
    }
    assert.deepEqual(phone.calls, [1, 1, 0])
    await auth.silentLogin()
    assert.deepEqual(phone.calls, [2, 2, 0])
  })

  promise('a fault of the configuration is told as one', async (phone) => {
    const { code, status } = await refused(phone, 'Misconfigured', (async () => {
      phone.next(token, faults.answer(401, { error: 'invalid_client', error_description: 'x' }))
      await phone.launch().silentLogin()
    await stored()
    })())
    assert.deepEqual([code, status], ['invalid_client', 401])
    assert.deepEqual(phone.calls, [1, 1, 0])
  })

  // ---- lost answers

  for (const [what, act, committed] of [
    ['the fail callback', faults.unreachable, false],
    ['a gateway', faults.answer(502), false],
    ['a captive portal', faults.answer(200, '<html>'), false],
    ['the fail callback, after the server committed,', faults.answerLost, true],
    ['a gateway, after the server committed,', faults.gatewayTimeout, true],
  ]) {
    promise(`a sign-in whose answer is lost by ${what} is repeated with its key, and no code is spent`, async (phone, get) => {
      const auth = phone.launch()
      phone.next(token, act, act)
      assert.equal((await get(auth)).statusCode, 200)
      assert.equal(phone.logins, 1)
      const attempts = phone.sent.filter(({ path }) => path === token)
      assert.equal(attempts.length, 3)
      assert.equal(new Set(attempts.map(({ header }) => header['Idempotency-Key'])).size, 1)
      assert.equal(new Set(attempts.map(({ data }) => data)).size, 1)
      const answered = attempts.filter(({ answer }) => answer)
      assert.equal(answered.length, committed ? 3 : 1)
      assert.equal(new Set(answered.map(({ answer }) => answer.data.refresh_token)).size, 1)
    })
  }

  promise('a refresh whose answer is lost is repeated, and the sign-in goes on', async (phone, get) => {
    await phone.launch().silentLogin()
    await stored()
    phone.ahead += 20 * minute
    const auth = phone.launch()
    phone.next(token, faults.answerLost, faults.gatewayTimeout)
    assert.equal((await get(auth)).statusCode, 200)
    assert.deepEqual(phone.calls, [1, 1, 3])
    phone.ahead += 20 * minute
    assert.equal((await get(auth)).statusCode, 200)
    assert.deepEqual(phone.calls, [1, 1, 4])
  })

  promise('a server that dies during a refresh costs no sign-in', async (phone, get) => {
    const auth = phone.launch()
    await auth.silentLogin()
    phone.ahead += 20 * minute
    phone.next(token, async (send) => {
      await send()
      await world.crash()
      throw { errMsg: 'request:fail connection reset' }
    })
    await refused(phone, 'NetworkError', get(auth))
    await world.restart()
    phone.ahead += 2000
    assert.equal((await get(auth)).statusCode, 200)
    assert.equal(phone.logins, 1)
  })

  promise('a short Retry-After is waited for', async (phone) => {
    phone.next(token, faults.answer(503, { error: 'temporarily_unavailable' }, { 'retry-after': '1' }))
    const before = world.now()
    await phone.launch().silentLogin()
    await stored()
    assert.ok(world.now() - before >= 1000)
    assert.deepEqual(phone.calls, [1, 2, 0])
  })

  promise('a long Retry-After is the caller\'s, and nothing is sent before', async (phone, get) => {
    for (const [status, Kind] of [[429, 'RateLimited'], [503, 'Unavailable']]) {
      const { calls: [logins] } = phone
      const auth = phone.launch({ clientId: 'shop-mini', scope: `openid ${Kind === 'RateLimited' ? 'profile' : 'phone'}` })
      phone.next(token, faults.answer(status, { error: 'temporarily_unavailable', error_description: '稍后再试' }, { 'Retry-After': '30' }))
      for (let i = 0; i < 5; i++) {
        const error = await refused(phone, Kind, i % 2 ? auth.silentLogin() : get(auth))
        assert.deepEqual([error.code, error.status, error.retryAfter, error.message], ['temporarily_unavailable', status, 30, '稍后再试'])
      }
      assert.equal(phone.logins, logins + 1)
      phone.ahead += 31000
      assert.equal((await get(auth)).statusCode, 200)
      assert.equal(phone.logins, logins + 2)
    }
  })

  promise('a fault of the server is not repeated', async (phone) => {
    phone.next(token, faults.answer(500, { error: 'server_error', error_description: '服务器内部错误' }))
    const { code, status } = await refused(phone, 'Unavailable', phone.launch().silentLogin())
    assert.deepEqual([code, status], ['server_error', 500])
    assert.deepEqual(phone.calls, [1, 1, 0])
  })

  promise('while the server is out of order, wx.login is called once in five seconds', async (phone) => {
    const auth = phone.launch()
    phone.next(token, faults.answer(500, { error: 'server_error' }))
    for (let i = 0; i < 50; i++) await refused(phone, 'Unavailable', auth.getToken())
    assert.deepEqual(phone.calls, [1, 1, 0])
    phone.ahead += 5001
    await auth.getToken()
    assert.deepEqual(phone.calls, [2, 2, 0])
  })

  promise('without a network wx.login is called once in one and a half seconds, unless by silentLogin', async (phone) => {
    const auth = phone.launch()
    phone.next(token, ...Array(3).fill(faults.unreachable))
    for (let i = 0; i < 50; i++) await refused(phone, 'NetworkError', auth.getToken())
    assert.deepEqual(phone.calls, [1, 3, 0])
    await auth.silentLogin()
    assert.deepEqual(phone.calls, [2, 4, 0])
  })

  promise('a captive portal, whatever its status, is soon forgotten', async (phone, get) => {
    for (const status of [200, 302, 400, 403]) {
      const auth = phone.launch({ scope: status % 200 ? 'openid phone' : 'openid profile' })
      phone.next(token, ...Array(3).fill(faults.answer(status)))
      const { calls: [logins] } = phone
      await refused(phone, 'NetworkError', get(auth))
      phone.ahead += 2000
      assert.equal((await get(auth)).statusCode, 200)
      assert.equal(phone.logins, logins + 2)
      await stored()
      phone.stored.clear()
    }
  })

  promise('a captive portal that answers a refresh with 400 costs no sign-in', async (phone, get) => {
    const auth = phone.launch()
    await auth.silentLogin()
    phone.ahead += 20 * minute
    phone.next(token, ...Array(3).fill(faults.answer(400)))
    await refused(phone, 'NetworkError', get(auth))
    phone.ahead += 2000
    assert.equal((await get(auth)).statusCode, 200)
    assert.equal(phone.logins, 1)
  })

  // ---- storage

  promise('the sign-in is one key, encrypted where WeChat can', async (phone) => {
    for (const [encryption, encrypted] of [['works', true], ['unknown', false], ['fails', false]]) {
      phone.stored.clear()
      phone.encryption = encryption
      await phone.launch().silentLogin()
    await stored()
      assert.deepEqual([...phone.stored.keys()], [`wxidp:${world.issuer}:shop-mini`])
      assert.equal([...phone.stored.values()][0].encrypted, encrypted)
      const { logins } = phone
      await phone.launch().silentLogin()
    await stored()
      assert.equal(phone.logins, logins)
    }
  })

  promise('whatever is in the storage, the mini-program starts', async (phone, get) => {
    const key = `wxidp:${world.issuer}:shop-mini`
    const like = (members) => JSON.stringify({ access: 'x', refresh: 'y', since: world.now(), life: 15 * minute, scope: 'openid profile', ...members })
    const bad = ['', '{', 'null', '[]', '1', '{}', undefined, null, 7, { access: 'x' }, like(), like({ access: 1 }), like({ access: null, refresh: null }),
      like({ refresh: {} }), like({ since: 'y' }), like({ since: 9e15, life: 9e15 }), like({ life: 'z' }), like({ life: null })]
    for (const data of bad) {
      for (const encrypted of [true, false]) {
        phone = new Phone(world, 'corrupt')
        phone.stored.set(key, { data, encrypted })
        assert.equal((await get(phone.launch())).statusCode, 200)
        await world.sleep(5)
        assert.equal(phone.logins, 1)
        assert.ok(phone.kept.access)
      }
    }
  })

  promise('a storage that fails in everything costs a sign-in for each launch, and no more', async (phone, get) => {
    const fail = (options) => options.fail({ errMsg: 'fail' })
    phone.override = { getStorage: fail, setStorage: fail, removeStorage: fail }
    const auth = phone.launch()
    await times(5, () => get(auth))
    assert.deepEqual(phone.calls, [1, 1, 0])
    await auth.logout()
  })

  promise('a storage that is cleared meanwhile takes nothing away from this launch', async (phone, get) => {
    const auth = phone.launch()
    phone.next(token, async (send) => {
      const answer = await send()
      phone.stored.clear()
      return answer
    })
    await get(auth)
    await world.sleep(20)
    assert.ok(phone.kept.access)
    phone.stored.clear()
    phone.ahead += 20 * minute
    assert.equal((await get(auth)).statusCode, 200)
    assert.deepEqual(phone.calls, [1, 1, 1])
    await world.sleep(20)
    assert.ok(phone.kept.access)
  })

  // ---- clock

  for (const [what, offset] of [['ahead', hour], ['behind', -hour]]) {
    promise(`a clock an hour ${what} makes no difference`, async (phone, get) => {
      phone.ahead = offset
      const auth = phone.launch()
      await times(3, () => get(auth))
      await stored()
      await phone.launch().silentLogin()
    await stored()
      assert.deepEqual(phone.calls, [1, 1, 0])
      phone.ahead += 20 * minute
      assert.equal((await get(auth)).statusCode, 200)
      assert.deepEqual(phone.calls, [1, 1, 1])
    })

    promise(`a clock that is put an hour ${what} costs at most one refresh`, async (phone, get) => {
      const auth = phone.launch()
      await get(auth)
      phone.ahead += offset
      await times(3, () => get(auth))
      await times(3, () => get(auth))
      assert.deepEqual(phone.calls, [1, 1, 1])
    })
  }

  promise('an expired token that looks good is found by the 401', async (phone, get) => {
    const auth = phone.launch()
    const before = await auth.getToken()
    phone.next('/oauth2/userinfo', faults.answer(401, { error: 'invalid_token' }))
    assert.equal((await get(auth)).statusCode, 200)
    assert.notEqual(await auth.getToken(), before)
    assert.deepEqual(phone.calls, [1, 1, 1])
  })

  // ---- accounts

  promise('username and password bind an account, and each try is one wx.login', async (phone, get) => {
    const password = 'a&b=c+d %40 中文'
    await world.account(phone.user, password)
    const auth = phone.launch()
    const bare = (await get(auth)).data.sub
    const { code, status } = await refused(phone, 'LoginRefused', auth.login({ username: phone.user, password: 'wrong' }))
    assert.deepEqual([code, status], ['invalid_grant', 400])
    assert.equal((await get(auth)).data.sub, bare)
    assert.deepEqual(phone.calls, [2, 2, 0])
    await auth.login({ username: phone.user, password: password })
    const bound = (await get(auth)).data.sub
    assert.notEqual(bound, bare)
    assert.deepEqual(phone.calls, [3, 3, 0])
    await stored()
    phone.stored.clear()
    assert.equal((await get(phone.launch())).data.sub, bound)
  })

  promise('requests during a refused login are not refused', async (phone, get) => {
    const auth = phone.launch()
    const login = auth.login({ username: 'nobody', password: 'wrong' })
    const answers = times(5, () => get(auth))
    await refused(phone, 'LoginRefused', login)
    assert.ok((await answers).every(({ statusCode }) => statusCode === 200))
    assert.deepEqual(phone.calls, [2, 2, 0])
  })

  promise('a client that makes no accounts asks for one, and wx.login rests until then', async (phone, get) => {
    await world.account(phone.user, 'correct horse')
    const auth = phone.launch({ clientId: 'shop-strict' })
    for (let i = 0; i < 20; i++) {
      const { code, status, message } = await refused(phone, 'AccountRequired', get(auth))
      assert.deepEqual([code, status], ['account_required', 400])
      assert.match(message, /[一-鿿]/)
    }
    assert.deepEqual(phone.calls, [1, 1, 0])
    await auth.login({ username: phone.user, password: 'correct horse' })
    assert.equal((await get(auth)).statusCode, 200)
    assert.deepEqual(phone.calls, [2, 2, 0])
    phone.ahead += 30000
    await revoked(await auth.getToken(), 'shop-strict')
    assert.equal((await get(auth)).statusCode, 200)
    assert.deepEqual(phone.calls, [2, 2, 1])
  })

  promise('the phone button signs in, or records the number', async (phone, get) => {
    const auth = phone.launch({ scope: 'openid phone' })
    await auth.loginWithPhone(await world.tap(phone.user))
    assert.equal(phone.count(token, 'wechat_phone'), 1)
    assert.ok((await get(auth)).data.phone_number)
    const other = new Phone(world, 'caller')
    const second = other.launch({ scope: 'openid phone' })
    await refused(other, 'LoginRefused', second.loginWithPhone('unknown'))
    const { sub } = (await get(second)).data
    await second.login({ phoneCode: await world.tap(other.user) })
    const { data } = await get(second)
    assert.equal(data.sub, sub)
    assert.ok(data.phone_number)
  })

  promise('a lost answer to a password is repeated with its key as well', async (phone) => {
    await world.account(phone.user, 'correct horse')
    phone.next(token, faults.answerLost)
    await phone.launch().login({ username: phone.user, password: 'correct horse' })
    assert.deepEqual(phone.calls, [1, 2, 0])
  })

  promise('a login before anything else is not undone by what was stored', async (phone, get) => {
    const before = (await get(phone.launch())).data.sub
    await stored()
    await world.account(phone.user, 'correct horse')
    const auth = phone.launch()
    await auth.login({ username: phone.user, password: 'correct horse' })
    assert.notEqual((await get(auth)).data.sub, before)
    await stored()
    assert.equal(phone.calls[0], 2)
    assert.notEqual((await get(phone.launch())).data.sub, before)
    assert.equal(phone.calls[0], 2)
  })

  // ---- scanning

  promise('a scanned screen is shown, and approved by its number', async (phone) => {
    const auth = phone.launch({ scope: 'openid device.approve' })
    const screen = await world.screen()
    const scan = await auth.approveScan(encodeURIComponent(screen.ticket))
    assert.deepEqual([scan.kind, scan.client, scan.clientId], ['device', '小店电视版', 'shop-tv'])
    assert.ok(scan.place && scan.expiresIn > 0 && Math.abs(scan.startedAt - world.now()) < minute)
    assert.ok(scan.numberEntry || scan.choices.includes(screen.number))
    await scan.approve(screen.number)
    assert.equal(await screen.state(), 'approved')
  })

  promise('a scanned screen can be refused, and a wrong number refuses it', async (phone) => {
    const auth = phone.launch({ scope: 'openid device.approve' })
    const denied = await world.screen()
    await (await auth.approveScan(denied.ticket)).deny()
    assert.equal(await denied.state(), 'access_denied')
    const guessed = await world.screen()
    const scan = await auth.approveScan(guessed.ticket)
    const { code, status } = await refused(phone, 'ScanRefused', scan.approve('0000'))
    assert.deepEqual([code, status], ['wrong_number', 409])
    assert.equal(await guessed.state(), 'access_denied')
    const gone = await refused(phone, 'ScanRefused', auth.approveScan('BCDF-GHJK'))
    assert.deepEqual([gone.code, gone.status], ['ticket_expired', 410])
  })

  promise('only an answer of the server decides about a screen', async (phone) => {
    const auth = phone.launch({ scope: 'openid device.approve' })
    const screen = await world.screen()
    for (const body of ['<html>', '', {}]) {
      phone.next('/device/context', faults.answer(200, body))
      await refused(phone, 'NetworkError', auth.approveScan(screen.ticket))
    }
    const scan = await auth.approveScan(screen.ticket)
    for (const [what, decide] of [['approve', () => scan.approve(screen.number)], ['deny', () => scan.deny()]]) {
      phone.next(`/device/${what}`, faults.answer(200))
      await refused(phone, 'NetworkError', decide())
    }
    await scan.approve(screen.number)
    assert.equal(await screen.state(), 'approved')
  })

  // ---- logout

  promise('logout ends the sign-in at the server, and nothing signs in behind it', async (phone, get) => {
    const auth = phone.launch()
    const before = await auth.getToken()
    await auth.logout()
    assert.equal(phone.stored.size, 0)
    const answer = await world.exchange({ path: '/oauth2/userinfo', method: 'GET', header: { Authorization: `Bearer ${before}` } })
    assert.equal(answer.statusCode, 401)
    const { code } = await refused(phone, 'LoggedOut', get(auth))
    assert.equal(code, 'logged_out')
    assert.deepEqual(phone.calls, [1, 1, 0])
    await refused(phone, 'LoginRefused', auth.login({ username: 'nobody', password: 'wrong' }))
    await refused(phone, 'LoggedOut', get(auth))
    await auth.silentLogin()
    assert.equal((await get(auth)).statusCode, 200)
  })

  promise('logout during a sign-in has the last word', async (phone, get) => {
    const auth = phone.launch()
    const waiting = times(5, () => refused(phone, 'LoggedOut', get(auth)))
    await auth.logout()
    await waiting
    assert.equal(phone.stored.size, 0)
    assert.equal(phone.count(revoke), 1)
  })

  promise('what is asked for during a sign-in that is logged out comes after both', async (phone, get) => {
    const auth = phone.launch()
    const events = []
    for (const event of ['login', 'logout']) auth.on(event, () => { events.push(event) })
    auth.silentLogin().catch(() => {})
    auth.logout()
    await auth.silentLogin()
    assert.deepEqual(events, ['login', 'logout', 'login'])
    assert.equal((await get(auth)).statusCode, 200)
  })

  promise('logout takes back a login that was asked for before', async (phone, get) => {
    await world.account(phone.user, 'correct horse')
    const auth = phone.launch()
    const login = auth.login({ username: phone.user, password: 'correct horse' })
    await auth.logout()
    await login
    await refused(phone, 'LoggedOut', get(auth))
    assert.equal(phone.count(revoke), 1)
  })

  promise('a logout that cannot clear the storage is none the less one', async (phone) => {
    await phone.launch().silentLogin()
    await stored()
    phone.override = { removeStorage: (options) => options.fail({ errMsg: 'fail' }) }
    const auth = phone.launch()
    await auth.logout()
    await auth.silentLogin()
    assert.deepEqual(phone.calls, [2, 2, 0])
  })

  promise('what is asked for after logout comes after it', async (phone, get) => {
    const auth = phone.launch()
    await auth.silentLogin()
    const logout = auth.logout()
    await auth.silentLogin()
    assert.deepEqual(phone.calls, [2, 2, 0])
    await logout
    assert.equal((await get(auth)).statusCode, 200)
    assert.deepEqual(phone.calls, [2, 2, 0])
  })

  promise('logout of a sign-in from an earlier launch ends it too', async (phone) => {
    await phone.launch().silentLogin()
    await stored()
    await phone.launch().logout()
    assert.equal(phone.stored.size, 0)
    assert.equal(phone.count(revoke), 1)
  })

  promise('logout forgets without a network, and says that the server does not know', async (phone) => {
    const auth = phone.launch()
    await auth.silentLogin()
    const failed = new Promise((done) => auth.on('error', done))
    phone.next(revoke, ...Array(3).fill(faults.unreachable))
    await auth.logout()
    assert.equal((await failed).code, 'no_answer')
    assert.equal(phone.stored.size, 0)
  })

  // ---- events

  promise('events tell what happened, and a listener that throws disturbs nothing', async (phone, get) => {
    const auth = phone.launch()
    const events = []
    for (const event of ['login', 'refresh', 'logout', 'error']) auth.on(event, () => { events.push(event) })
    const broken = () => { throw new Error('of the listener') }
    auth.on('login', broken)
    assert.deepEqual(await unhandled(() => get(auth)), ['of the listener'])
    auth.off('login', broken)
    phone.ahead += 20 * minute
    await get(auth)
    await auth.logout()
    assert.deepEqual(events, ['login', 'refresh', 'logout'])
  })

  // ---- requests and platforms

  promise('request takes callbacks like wx.request, and passes its options on', async (phone) => {
    const auth = phone.launch()
    const seen = []
    const answer = await new Promise((success) => auth.request({
      url: userinfo, header: { 'X-Mine': '1' }, success, complete: () => seen.push('complete'),
    }))
    assert.equal(answer.statusCode, 200)
    const { header } = phone.sent.find(({ path }) => path === '/oauth2/userinfo')
    assert.equal(header['X-Mine'], '1')
    assert.match(header.Authorization, /^Bearer ./)
    assert.equal((await auth.request({ url: userinfo, header: { authorization: 'mine', AUTHORIZATION: 'mine' } })).statusCode, 200)
    assert.deepEqual(Object.keys(phone.sent.at(-1).header).filter((name) => /^authorization$/i.test(name)), ['Authorization'])
    phone.next('/oauth2/userinfo', faults.unreachable)
    const error = await new Promise((fail) => auth.request({ url: userinfo, fail, complete: () => seen.push('complete') }))
    assert.ok(error instanceof phone.sdk.NetworkError)
    await world.sleep(1)
    assert.deepEqual(seen, ['complete', 'complete'])
  })

  promise('a platform that returns promises as well, as Taro does, leaves none unhandled', async (phone, get) => {
    const dress = (wx) => Object.fromEntries(Object.entries(wx).map(([name, work]) => [name, (options) => new Promise((resolve, reject) => {
      work({
        ...options,
        success: (result) => { options.success(result); resolve(result) },
        fail: (reason) => { options.fail(reason); reject(reason) },
      })
    })]))
    const reasons = await unhandled(async () => {
      phone.next(token, faults.unreachable)
      assert.equal((await get(phone.launch({}, { dress }))).statusCode, 200)
    })
    assert.deepEqual(reasons, [])
  })

  promise('messages are Chinese, or English where asked for', async (phone) => {
    for (const [language, pattern] of [[undefined, /[一-鿿]/], ['en', /^[ -~]+$/]]) {
      const auth = phone.launch({ language, clientId: 'shop-mini' })
      phone.next(token, ...Array(3).fill(faults.unreachable))
      assert.match((await refused(phone, 'NetworkError', auth.silentLogin())).message, pattern)
    }
    assert.equal(phone.sent.at(-1).form.get('ui_locales'), 'en')
  })
}

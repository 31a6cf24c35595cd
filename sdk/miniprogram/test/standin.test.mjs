// The promises against the stand-in, and those that need to own time.

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { Phone, faults } from './phone.mjs'
import { StandIn } from './standin.mjs'
import { suite } from './suite.mjs'

const world = new StandIn()
suite(world)

const alone = (sentence, body) => test(sentence, () => world.run(body(new Phone(world, 'user'))))

alone('a request that WeChat never answers ends', async (phone) => {
  const auth = phone.launch()
  phone.override = {}
  phone.next('/oauth2/token', faults.silence)
  await auth.silentLogin()
  assert.deepEqual(phone.calls, [1, 2, 0])
})

for (const name of ['login', 'request', 'getStorage', 'setStorage', 'removeStorage']) {
  alone(`a platform whose ${name} never answers holds nobody for ever`, async (phone) => {
    phone.override = { [name]: () => {} }
    const auth = phone.launch()
    const outcome = await auth.silentLogin().then(() => 'fine', (error) => error.name)
    assert.equal(outcome, name === 'login' || name === 'request' ? 'NetworkError' : 'fine')
    await auth.logout()
  })
}

alone('a slow network is given up after half a minute, and the refresh token kept', async (phone) => {
  await phone.launch().silentLogin()
  await world.sleep(20)
  phone.ahead += 3600000
  const auth = phone.launch()
  phone.next('/oauth2/token', faults.silence, faults.silence, faults.silence)
  const start = world.now()
  await assert.rejects(auth.getToken())
  assert.ok(world.now() - start < 30000)
  phone.ahead += 2000
  await auth.getToken()
  assert.equal(phone.logins, 1)
})

alone('the oldest refresh token is sent no later than the server takes it', async (phone) => {
  await phone.launch().silentLogin()
  await world.sleep(20)
  phone.ahead += 3600000
  const auth = phone.launch()
  // committed, and answered too late
  phone.next('/oauth2/token', async (send) => {
    await send()
    return new Promise(() => {})
  })
  await auth.getToken()
  assert.deepEqual(phone.calls, [1, 1, 2])
})

alone('a request is not sent again after a rest in the background', async (phone) => {
  const auth = phone.launch()
  phone.next('/oauth2/token', async () => {
    world.setTimeout(() => { phone.ahead += 60000 }, 1)
    throw { errMsg: 'request:fail interrupted' }
  })
  await assert.rejects(auth.getToken(), ({ name }) => name === 'NetworkError')
  assert.deepEqual(phone.calls, [1, 1, 0])
})

alone('without an issuer nothing is made', async (phone) => {
  assert.throws(() => phone.launch({ issuer: undefined }), ({ name, code }) => name === 'Misconfigured' && code === 'no_issuer')
})

/** The fenced blocks of a document, without comments, which are translated. */
const blocks = async (name) => [...(await readFile(new URL(`../${name}`, import.meta.url), 'utf8')).matchAll(/^```\w+\n([^]*?)^```$/gm)].map(([, code]) => code.replace(/\/\/ .*/g, ''))

const examples = await blocks('README.md')

test('both READMEs have the same code', async () => {
  assert.deepEqual(await blocks('README.zh-CN.md'), examples)
})

alone('the page of the README approves a scan', async (phone) => {
  const code = examples.find((block) => block.includes('approveScan'))
  let page
  new Function('auth', 'Page', code)(phone.launch({ scope: 'openid device.approve' }), (options) => { page = options })
  let shown
  page.setData = (data) => { shown = data.asks }
  const screen = await world.screen()
  await page.onLoad({ q: encodeURIComponent(screen.ticket) })
  assert.deepEqual([shown.client, shown.choices.length, shown.numberEntry], ['小店电视版', 3, false])
  await page.approve({ currentTarget: { dataset: { number: screen.number } } })
  assert.equal(await screen.state(), 'approved')
})

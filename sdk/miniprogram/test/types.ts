// Compiled, not run: the types as a mini-program meets them, beside WeChat's own.

import { AccountRequired, AuthError, RateLimited, createAuth, type Auth, type Platform, type Scan } from 'wxidp-miniprogram'

const platform: Platform = wx

const auth: Auth = createAuth({ issuer: 'https://id.example.com', clientId: 'shop-mini', scope: 'openid', platform, language: 'en' })
createAuth({ issuer: 'https://id.example.com', clientId: 'shop-mini' })

// what wx.request takes, request takes
const options: WechatMiniprogram.RequestOption<{ id: string }> = { url: 'https://api.shop.example/orders' }
const answer: { id: string } = (await auth.request<{ id: string }>(options)).data
const status: number = (await auth.request({ url: 'https://api.shop.example', method: 'PUT', enableHttp2: true })).statusCode

const token: string = await auth.getToken()
await auth.login({ username: 'ming', password: 'x' })
await auth.login({ phoneCode: 'x', phoneChange: true })
const scan: Scan = await auth.approveScan('x')
if (scan.choices) await scan.approve(scan.choices[0])

auth.on('error', (error) => {
  const known: AuthError = error
  if (error instanceof RateLimited) wx.showToast({ title: `${known.retryAfter} ${known.code} ${known.status}` })
  if (error instanceof AccountRequired) wx.navigateTo({ url: '/pages/bind/bind' })
})
auth.on('login', () => {})

// @ts-expect-error there is no such event
auth.on('expired', () => {})
// @ts-expect-error issuer is needed
createAuth({ clientId: 'shop-mini' })
// @ts-expect-error a number is a text: 07 would lose its zero
await scan.approve(7)

export { answer, status, token }

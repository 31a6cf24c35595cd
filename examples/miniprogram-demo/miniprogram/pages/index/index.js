// The start: who is signed in, and their orders.

const { LoggedOut } = require('wxidp-miniprogram')
const api = require('../../api')
const auth = require('../../auth')
const { lookOf } = require('../../picture')
const textOf = require('../../texts')

Page({
  data: { state: 'loading', message: '', user: null, picture: '', initial: '', orders: [] },

  onShow() {
    return this.load()
  },

  async onPullDownRefresh() {
    await this.load()
    wx.stopPullDownRefresh()
  },

  async load() {
    try {
      // both wait for one sign-in
      const [user, orders] = await Promise.all([api.profile(), api.orders()])
      this.setData(Object.assign({ state: 'ready', orders }, lookOf(user)))
    } catch (error) {
      const state = error instanceof LoggedOut ? 'out' : 'failed'
      this.setData({ state, message: textOf(error), user: null, orders: [] })
    }
  },

  /** After a logout, and after a failure. */
  async signIn() {
    this.setData({ state: 'loading' })
    await auth.silentLogin().catch(() => {}) // load() tells
    await this.load()
  },

  openProfile() {
    wx.navigateTo({ url: '/pages/profile/profile' })
  },

  openScan() {
    wx.navigateTo({ url: '/pages/scan/scan' })
  },
})

// Lets another screen in: a browser or a television that shows a code. The page is opened by the code itself (q or scene),
// or from inside the mini-program.

const { ScanRefused } = require('wxidp-miniprogram')
const auth = require('../../auth')
const textOf = require('../../texts')

const two = (number) => String(number).padStart(2, '0')

function clock(time) {
  const date = new Date(time)
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`
}

Page({
  // state: start, loading, asking, done
  data: { state: 'start', asks: null, message: '', busy: false },

  onLoad({ q, scene }) {
    if (q || scene) return this.open(q || scene)
    return undefined
  },

  /** Whoever leaves has not agreed. */
  onUnload() {
    if (this.data.state === 'asking') this.scan.deny().catch(() => {})
  },

  scanCode() {
    wx.scanCode({
      scanType: ['qrCode', 'wxCode'],
      // a mini-program code of this mini-program comes as a path
      success: ({ result, path = '' }) => {
        const [, scene] = /[?&]scene=([^&]+)/.exec(path) || []
        this.open(scene || result)
      },
    })
  },

  typed({ detail }) {
    const code = detail.value.code.trim()
    return code ? this.open(code) : undefined
  },

  async open(ticket) {
    this.setData({ state: 'loading', message: '' })
    try {
      this.scan = await auth.approveScan(ticket)
    } catch (error) {
      this.setData({ state: 'start', message: textOf(error) })
      return
    }
    const { kind, client, browser, place, startedAt, choices, numberEntry, warning } = this.scan
    this.setData({ state: 'asking', asks: { kind, client, browser, place, time: clock(startedAt), choices, numberEntry, warning } })
  },

  choose({ currentTarget }) {
    return this.decide(() => this.scan.approve(currentTarget.dataset.number), '登录成功')
  },

  enter({ detail }) {
    const number = detail.value.number.trim()
    return number ? this.decide(() => this.scan.approve(number), '登录成功') : undefined
  },

  cancel() {
    return this.decide(() => this.scan.deny(), '已取消')
  },

  async decide(work, message) {
    if (this.data.busy) return
    this.setData({ busy: true })
    try {
      await work()
      this.setData({ state: 'done', message })
    } catch (error) {
      // refused is for good, anything else can be tried again
      if (error instanceof ScanRefused) this.setData({ state: 'done', message: textOf(error) })
      else wx.showToast({ title: textOf(error), icon: 'none' })
    }
    this.setData({ busy: false })
  },

  close() {
    if (getCurrentPages().length > 1) wx.navigateBack()
    else wx.reLaunch({ url: '/pages/index/index' })
  },
})

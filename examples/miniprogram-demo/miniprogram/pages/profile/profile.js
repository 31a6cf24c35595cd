// The user's own data: picture and nickname as the user gives them, phone number, account, sign-out.

const api = require('../../api')
const auth = require('../../auth')
const { upload } = require('../../config')
const { keepPicture, lookOf } = require('../../picture')
const simulator = require('../../simulator')
const textOf = require('../../texts')

const toast = (title) => wx.showToast({ title, icon: 'none' })

Page({
  data: { user: null, picture: '', initial: '', message: '', busy: false, simulated: simulator.simulated },

  onShow() {
    return this.load()
  },

  async load() {
    try {
      this.show(await api.profile())
    } catch (error) {
      this.setData({ user: null, message: textOf(error) })
    }
  },

  show(user) {
    this.setData(lookOf(user))
  },

  /** One thing at a time, and what it says if it does not work. */
  async attempt(work, refused) {
    if (this.data.busy) return
    this.setData({ busy: true })
    try {
      await work()
    } catch (error) {
      toast(textOf(error, refused))
    }
    this.setData({ busy: false })
  },

  choosePicture({ detail }) {
    return this.attempt(async () => {
      if (upload) {
        this.show(await api.saveProfile({ picture: await api.uploadPicture(detail.avatarUrl) }))
      } else {
        await keepPicture(this.data.user, detail.avatarUrl)
        this.show(this.data.user)
      }
    })
  },

  saveNickname({ detail }) {
    const nickname = detail.value.nickname.trim()
    if (!nickname || nickname === this.data.user.nickname) return undefined
    return this.attempt(async () => {
      this.show(await api.saveProfile({ nickname }))
      toast('已保存')
    })
  },

  /** The phone number button. Without a code the user said no, or WeChat's quota is used up (errno 1400001). */
  takePhone({ detail }) {
    if (!detail.code) return detail.errno === 1400001 ? toast('暂时无法获取手机号') : undefined
    return this.signInByPhone(detail.code)
  },

  async takeSimulatedPhone() {
    await this.signInByPhone(await simulator.phoneCode())
  },

  signInByPhone(code) {
    return this.attempt(async () => {
      await auth.loginWithPhone(code)
      await this.load()
    }, '手机号验证失败，请重试')
  },

  bind() {
    wx.navigateTo({ url: '/pages/bind/bind' })
  },

  async signOut() {
    await auth.logout()
    wx.reLaunch({ url: '/pages/index/index' })
  },
})

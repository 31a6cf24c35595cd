// Binds this WeChat user to an account that the person has: once, from then on sign-ins are silent.

const auth = require('../../auth')
const textOf = require('../../texts')

Page({
  data: { busy: false, message: '' },

  async submit({ detail }) {
    const { username, password } = detail.value
    if (this.data.busy) return
    if (!username || !password) {
      this.setData({ message: '请输入用户名和密码' })
      return
    }
    this.setData({ busy: true, message: '' })
    try {
      await auth.login({ username, password })
      wx.reLaunch({ url: '/pages/index/index' })
    } catch (error) {
      this.setData({ message: textOf(error, '用户名或密码不对') })
    }
    this.setData({ busy: false })
  },
})

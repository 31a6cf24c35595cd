const { AccountRequired } = require('wxidp-miniprogram')
const auth = require('./auth')

const bind = 'pages/bind/bind'

App({
  onLaunch() {
    // a client with auto_create: false lets nobody in without an account
    auth.on('error', (error) => {
      const open = getCurrentPages().some(({ route }) => route === bind)
      if (error instanceof AccountRequired && !open) wx.navigateTo({ url: `/${bind}` })
    })
    // pages need not wait for it: their requests do
    auth.silentLogin().catch(() => {})
  },
})

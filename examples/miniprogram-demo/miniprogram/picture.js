// What a user looks like. Without an address to upload a picture to, it stays on this phone.

const key = 'picture'

/** Data of a page: the user, a path or URL of the picture ('' where there is none), and a letter in its place. */
function lookOf(user) {
  const own = wx.getStorageSync(key)
  return {
    user,
    picture: own && own.sub === user.sub ? own.path : user.picture || '',
    initial: Array.from(user.nickname || '微')[0],
  }
}

/** Keeps the file that the person chose, which WeChat would throw away soon. */
const keepPicture = ({ sub }, tempFilePath) => new Promise((resolve, reject) => wx.getFileSystemManager().saveFile({
  tempFilePath,
  success({ savedFilePath }) {
    wx.setStorageSync(key, { sub, path: savedFilePath })
    resolve()
  },
  fail: reject,
}))

module.exports = { lookOf, keepPicture }

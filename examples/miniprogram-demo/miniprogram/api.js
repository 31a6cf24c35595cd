// The requests of this mini-program. Who asks is in the access token, which auth.request adds.

const auth = require('./auth')
const { api, issuer, upload } = require('./config')

/** Answers the body, or rejects with `statusCode` where the answer is no success. */
async function ask(options) {
  const { statusCode, data } = await auth.request(options)
  if (statusCode === 200) return data
  throw Object.assign(new Error(`${options.url}: ${statusCode}`), { statusCode })
}

const orders = async () => (await ask({ url: `${api}/orders` })).orders

const profile = () => ask({ url: `${issuer}/oauth2/userinfo` })

/** Changes nickname, picture or both. It is a POST, because wx.request knows no PATCH. */
const saveProfile = (changes) => ask({ url: `${issuer}/account`, method: 'POST', data: changes })

/** Uploads a picture and answers its URL. */
async function uploadPicture(filePath) {
  const token = await auth.getToken()
  return new Promise((resolve, reject) => wx.uploadFile({
    url: upload,
    filePath,
    name: 'file',
    header: { Authorization: `Bearer ${token}` },
    success: ({ statusCode, data }) => (statusCode === 200 ? resolve(JSON.parse(data).url) : reject(new Error(`${upload}: ${statusCode}`))),
    fail: reject,
  }))
}

module.exports = { orders, profile, saveProfile, uploadPicture }

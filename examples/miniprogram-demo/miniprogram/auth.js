// The sign-in of this mini-program: one for all pages.

const { createAuth } = require('wxidp-miniprogram')
const { issuer, clientId, scope } = require('./config')
const { platform } = require('./simulator')

module.exports = createAuth({ issuer, clientId, scope, platform })

// Puts the SDK of this repository where 构建 npm would put it, so that the project opens as it is.

import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'

const sdk = join(import.meta.dirname, '..', '..', 'sdk', 'miniprogram')
const target = join(import.meta.dirname, 'miniprogram', 'miniprogram_npm', 'wxidp-miniprogram')

// npm names itself, which spares a shell on Windows
function npm(...args) {
  if (!process.env.npm_execpath) throw new Error('run this by "npm run sdk"')
  execFileSync(process.execPath, [process.env.npm_execpath, ...args], { cwd: sdk, stdio: 'inherit' })
}

if (!existsSync(join(sdk, 'node_modules'))) npm('ci', '--no-audit', '--no-fund')
npm('run', 'build')
const { miniprogram } = JSON.parse(readFileSync(join(sdk, 'package.json'), 'utf8'))
rmSync(target, { recursive: true, force: true })
cpSync(join(sdk, miniprogram), target, { recursive: true })

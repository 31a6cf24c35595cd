// The same promises, kept with the real program and its WeChat simulator.

import { existsSync } from 'node:fs'
import { after, test } from 'node:test'

const bin = process.env.E2E_WXIDP_BIN
if (bin && existsSync(bin)) {
  const { Real } = await import('./real.mjs')
  const { suite } = await import('./suite.mjs')
  const world = await new Real().start()
  after(() => world.stop())
  suite(world)
} else if (process.env.CI === 'true') {
  test('the real program', () => { throw new Error(`E2E_WXIDP_BIN names no program: ${bin}`) })
} else {
  test('the real program', { skip: 'SKIPPED: set E2E_WXIDP_BIN to the program, as `make build` makes it' })
}

// Makes what the package ships: lib (CommonJS and types), esm (for bundlers), miniprogram_dist (minified, for 构建 npm).

import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { build } from 'esbuild'

process.chdir(import.meta.dirname)
for (const folder of ['lib', 'esm', 'miniprogram_dist']) rmSync(folder, { recursive: true, force: true })

execFileSync(process.execPath, ['node_modules/typescript/bin/tsc'], { stdio: 'inherit' })
const common = { entryPoints: ['src/index.ts'], bundle: true, target: 'es2017', charset: 'utf8', platform: 'neutral' }
await build({ ...common, format: 'cjs', outfile: 'lib/index.js' })
await build({ ...common, format: 'esm', outfile: 'esm/index.js' })
await build({ ...common, format: 'cjs', minify: true, outfile: 'miniprogram_dist/index.js' })

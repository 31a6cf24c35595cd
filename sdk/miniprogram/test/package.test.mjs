// What is shipped: its size, its language, its types, and that WeChat's own tool takes it.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import { parse, tokenizer } from 'acorn'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const run = promisify(execFile)
const read = (name) => readFile(join(root, name), 'utf8')
const manifest = JSON.parse(await read('package.json'))
const most = 4096

async function inFolder(body) {
  const folder = await mkdtemp(join(tmpdir(), 'wxidp-package-'))
  try {
    return await body(folder)
  } finally {
    await rm(folder, { recursive: true })
  }
}

test(`the mini-program carries at most ${most} bytes, gzipped`, async (t) => {
  const code = await read('miniprogram_dist/index.js')
  const size = gzipSync(code, { level: 9 }).length
  t.diagnostic(`${code.length} characters, ${size} bytes gzipped`)
  assert.ok(size <= most, `${size} bytes`)
})

test('what is shipped is ES2017, and names nothing that some phones lack', async () => {
  const missing = new Set(['URL', 'URLSearchParams', 'fetch', 'atob', 'btoa', 'Proxy', 'eval', 'Function', 'TextEncoder', 'process', 'Buffer',
    'globalThis', 'window', 'crypto', 'require', 'finally', 'allSettled', 'fromEntries', 'matchAll', 'replaceAll', 'flatMap'])
  for (const [name, sourceType] of [['lib/index.js', 'script'], ['miniprogram_dist/index.js', 'script'], ['esm/index.js', 'module']]) {
    const code = await read(name)
    parse(code, { ecmaVersion: 2017, sourceType })
    for (const { type, value } of tokenizer(code, { ecmaVersion: 2017, sourceType })) {
      if (type.label === 'name') assert.ok(!missing.has(value), `${name} uses ${value}`)
    }
  }
})

test('nothing is needed at run time, and what the manifest names is packed', async () => {
  assert.equal(manifest.dependencies, undefined)
  const { stdout } = await run('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: root })
  const [packed] = Object.values(JSON.parse(stdout))
  const files = packed.files.map(({ path }) => path)
  for (const name of [manifest.main, manifest.module, manifest.types, 'miniprogram_dist/index.js', 'README.md', 'README.zh-CN.md', 'LICENSE']) {
    assert.ok(files.includes(name), `${name} is missing from ${files}`)
  }
  assert.ok(files.every((path) => /^(lib|esm|miniprogram_dist)\/|^(package\.json|README\.md|README\.zh-CN\.md|LICENSE)$/.test(path)), `${files}`)
  assert.deepEqual(await readdir(join(root, 'miniprogram_dist')), ['index.js'])
})

test('its builds export the same', async () => {
  const names = Object.keys(createRequire(import.meta.url)(join(root, manifest.main))).sort()
  assert.deepEqual(names, Object.keys(createRequire(import.meta.url)(join(root, 'miniprogram_dist/index.js'))).sort())
  const module = `data:text/javascript,${encodeURIComponent(await read(manifest.module))}`
  assert.deepEqual(names, Object.keys(await import(module)).sort())
  assert.ok(names.includes('createAuth'))
})

test("its types fit WeChat's", async () => {
  const arguments_ = ['--noEmit', '--strict', '--target', 'es2022', '--module', 'esnext', '--moduleResolution', 'bundler',
    '--types', 'miniprogram-api-typings', '--lib', 'es2022', '--skipLibCheck', 'false', '--ignoreConfig', 'types.ts']
  await inFolder(async (folder) => {
    await mkdir(join(folder, 'node_modules'))
    for (const name of ['package.json', 'lib']) await cp(join(root, name), join(folder, 'node_modules/wxidp-miniprogram', name), { recursive: true })
    await cp(join(root, 'node_modules/miniprogram-api-typings'), join(folder, 'node_modules/miniprogram-api-typings'), { recursive: true })
    await cp(join(root, 'test/types.ts'), join(folder, 'types.ts'))
    await run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), ...arguments_], { cwd: folder })
      .catch((error) => assert.fail(error.stdout))
  })
})

const tool = join(root, 'pack/node_modules/miniprogram-ci')
const skip = !existsSync(tool) && process.env.CI !== 'true' && "SKIPPED: WeChat's tool is not installed: npm ci --prefix pack"
test("WeChat's tool builds it as 构建 npm does", { skip }, async () => {
  await inFolder(async (folder) => {
    const installed = join(folder, 'node_modules/wxidp-miniprogram')
    const { stdout } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], { cwd: root })
    await mkdir(installed, { recursive: true })
    const [{ filename }] = Object.values(JSON.parse(stdout))
    await run('tar', ['-xzf', join(folder, filename), '-C', installed, '--strip-components=1'])
    await writeFile(join(folder, 'package.json'), JSON.stringify({ name: 'shop', version: '1.0.0', dependencies: { 'wxidp-miniprogram': manifest.version } }))
    const mini = join(folder, 'miniprogram')
    await mkdir(mini)
    const { packNpmManually } = createRequire(import.meta.url)(tool)
    const { miniProgramPackNum, warnList } = await packNpmManually({ packageJsonPath: join(folder, 'package.json'), miniprogramNpmDistDir: mini })
    assert.equal(miniProgramPackNum, 1)
    assert.deepEqual(warnList, [])
    const built = join(mini, 'miniprogram_npm/wxidp-miniprogram')
    assert.deepEqual(await readdir(built), ['index.js'])
    assert.equal(await readFile(join(built, 'index.js'), 'utf8'), await read('miniprogram_dist/index.js'))
  })
})

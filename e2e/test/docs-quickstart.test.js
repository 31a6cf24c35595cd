// docs/quickstart and docs/migrating do what they say, in both languages.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { createRemoteJWKSet, decodeJwt, jwtVerify } from 'jose';
import { blocks } from '../lib/docs.js';
import { MiniProgram } from '../lib/miniprogram.js';
import { Example, kinds, Unavailable } from '../lib/resource-server.js';
import { appID, audience, binary, freePorts, root, startDev } from '../lib/server.js';
import { shell } from '../lib/shell.js';

const run = promisify(execFile);
const built = ['node_modules', 'miniprogram_npm', 'lib', 'esm', 'miniprogram_dist'];

/** A folder with some parts of the repository, without what was built in them. */
async function copyOf(t, ...parts) {
  const dir = await mkdtemp(join(tmpdir(), 'wxidp-e2e-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  for (const part of parts) {
    const source = join(root, part);
    await cp(source, join(dir, part), { recursive: true, filter: (path) => !built.some((name) => path.slice(source.length).split('/').includes(name)) });
  }
  return dir;
}

/** Runs a snippet that goes on running, until the test has ended. */
async function runOn(t, script, dir, variables, ready) {
  const child = spawn('/bin/sh', ['-e', '-c', script], { cwd: dir, env: { ...process.env, ...variables }, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  const exited = once(child, 'exit');
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { output += text; });
  const kill = () => { if (child.exitCode === null) process.kill(-child.pid, 'SIGKILL'); };
  process.once('exit', kill);
  t.after(async () => {
    kill();
    await exited;
    process.off('exit', kill);
  });
  for (const deadline = Date.now() + 300_000; Date.now() < deadline && child.exitCode === null; await sleep(100)) {
    if (await ready().catch(() => false)) return undefined;
  }
  if (/ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|E40[34]/.test(output)) return `SKIPPED: its packages cannot be had: ${output}`;
  throw new Error(`it does not run: ${output}`);
}

for (const language of ['', '.zh-CN']) {
  const document = `docs/quickstart${language}.md`;

  test(`${document}: a backend, and a call that it accepts`, async (t) => {
    const server = await startDev();
    t.after(() => server.stop());
    const [port] = await freePorts(1);
    const api = `http://127.0.0.1:${port}`;
    const dir = await copyOf(t, 'examples/resource-server-node');
    const [script] = await blocks(document, 'backend');
    const missing = await runOn(t, script.replace('http://127.0.0.1:8080', server.issuer), dir, { PORT: String(port) },
      async () => (await fetch(`${api}/orders`)).status === 401);
    if (missing) {
      t.skip(missing);
      return;
    }
    const lines = await shell(server, document, ['call'], (text) => text.replaceAll('http://127.0.0.1:3000', api));
    const [good, none, ...rest] = lines.map((line) => JSON.parse(line));
    assert.deepEqual(rest, []);
    assert.deepEqual(good.orders, [{ id: '1001', item: 'tea' }]);
    assert.ok(good.sub);
    assert.deepEqual(none, {});
  });

  test(`${document}: the SDK in a mini-program`, async (t) => {
    const dir = await copyOf(t, 'examples/miniprogram-demo', 'sdk/miniprogram');
    const [script] = await blocks(document, 'demo');
    try {
      await run('/bin/sh', ['-e', '-c', script], { cwd: dir, timeout: 300_000 });
    } catch (err) {
      if (!/ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|E40[34]/.test(`${err.stderr}${err.stdout}`)) throw err;
      t.skip(`SKIPPED: the SDK's tools cannot be had: ${err.stderr}`);
      return;
    }
    let orders;
    try {
      orders = await Example.build(kinds.find(({ name }) => name === 'node'));
    } catch (err) {
      if (!(err instanceof Unavailable)) throw err;
      t.skip(`SKIPPED: ${err.message}`);
      return;
    }
    t.after(() => orders.stop());
    const server = await startDev();
    t.after(() => server.stop());
    const [port] = await freePorts(1);
    const api = `http://127.0.0.1:${port}`;
    const ready = async () => (await fetch(`${api}/me`)).status === 401;
    await runOn(t, `exec "${orders.command.join('" "')}"`, dir, { ISSUER: server.issuer, AUDIENCE: audience, PORT: String(port) }, ready);

    const own = join(dir, 'own');
    const files = { 'auth.js': 'auth', 'app.js': 'app', 'pages/index/index.js': 'page' };
    for (const [name, block] of Object.entries(files)) {
      const [code] = await blocks(document, block);
      await mkdir(dirname(join(own, name)), { recursive: true });
      await writeFile(join(own, name), code.replace('https://id.example.com', server.issuer).replace('https://api.shop.example', api));
    }
    await writeFile(join(own, 'app.json'), '{"pages":["pages/index/index"]}');
    await writeFile(join(own, 'pages/index/index.wxml'), '<view wx:for="{{orders}}">{{item.item}}</view>');
    await cp(join(dir, 'examples/miniprogram-demo/miniprogram/miniprogram_npm'), join(own, 'miniprogram_npm'), { recursive: true });
    const phone = new MiniProgram(own, { login: () => server.login('alice') });
    await phone.launch();
    assert.equal(phone.text, 'tea');
    assert.deepEqual(phone.statuses, [['/oauth2/token', 200], ['/orders', 200]]);
  });

  test(`${document}: a configuration for the real WeChat`, async (t) => {
    const [script] = await blocks(document, 'init');
    const dir = await copyOf(t);
    const lines = script.trim().split('\n');
    assert.match(lines.pop(), /^bin\/wxidp serve /);
    await run('/bin/sh', ['-e', '-c', lines.join('\n').replaceAll('bin/wxidp', await binary())], { cwd: dir });
  });

  const migrating = `docs/migrating${language}.md`;
  test(`${migrating}: users with their ids, and a backend that takes both kinds of token`, async (t) => {
    const server = await startDev();
    t.after(() => server.stop());
    const dir = await copyOf(t);
    const [summary, answer] = (await shell(server, migrating, ['import'], (text) => `cd ${dir}\n${text}`)).slice(-2);
    assert.match(summary, /1 created/);
    const { access_token: token } = JSON.parse(answer);
    assert.equal(decodeJwt(token).external_id, '1001');

    const [code] = await blocks(migrating, 'both');
    await symlink(join(root, 'e2e', 'node_modules'), join(dir, 'node_modules'));
    await writeFile(join(dir, 'both.mjs'), code);
    const { userOf } = await import(join(dir, 'both.mjs'));
    const keys = createRemoteJWKSet(new URL(`${server.issuer}/.well-known/jwks.json`));
    const by = {
      verify: async (bearer) => (await jwtVerify(bearer, keys, { issuer: server.issuer, audience, typ: 'at+jwt', algorithms: ['ES256'] })).payload,
      verifyOld: (bearer) => `old ${bearer}`,
      users: { ofSub: (sub) => `new ${sub}` },
    };
    assert.equal(await userOf(token, by), '1001');
    for (const old of ['opaque', 'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.x']) assert.equal(await userOf(old, by), `old ${old}`);
    const response = await fetch(`${server.issuer}/oauth2/token`, {
      method: 'POST',
      body: new URLSearchParams({ grant_type: 'wechat_jscode', client_id: 'shop-mini', js_code: await server.login('new', appID), scope: 'openid external_id' }),
    });
    const { access_token: fresh } = await response.json();
    assert.equal(await userOf(fresh, by), `new ${decodeJwt(fresh).sub}`);
    await assert.rejects(userOf(`${token}x`, by));
  });
}

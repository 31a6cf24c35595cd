// The recipes of docs/wechat-data do what they say, in both languages.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { blocks } from '../lib/docs.js';
import { appID, freePorts, Program, startDev } from '../lib/server.js';
import { shell } from '../lib/shell.js';

const run = promisify(execFile);

for (const document of ['docs/wechat-data.md', 'docs/wechat-data.zh-CN.md']) {
  test(`${document}: the requests by curl`, async (t) => {
    const server = await startDev();
    t.after(() => server.stop());
    const lines = await shell(server, document, ['prepare', 'requests']);
    const [opened, signature, checked, reset, expired, anew, ...rest] = lines.map((line) => JSON.parse(line));
    assert.deepEqual(rest, []);
    for (const { data } of [opened, anew]) {
      assert.equal(data.nickName, '微信用户');
      assert.equal(data.watermark.appid, appID);
    }
    assert.notEqual(opened.data.openId, anew.data.openId);
    assert.deepEqual(signature, { valid: true });
    assert.deepEqual(checked, { valid: true });
    assert.deepEqual(reset, { reset: true });
    assert.equal(expired.error, 'session_key_expired');
  });

  test(`${document}: the events by curl`, async (t) => {
    const server = await startDev();
    t.after(() => server.stop());
    const lines = await shell(server, document, ['prepare', 'events']);
    const [before, revoked, ended, after, closed, other, ...rest] = lines.map((line) => JSON.parse(line));
    assert.deepEqual(rest, []);
    assert.ok(before.phone_number_verified);
    for (const push of [revoked, closed]) assert.deepEqual(push, { status: 200, body: 'success' });
    assert.equal(ended.error, 'invalid_token');
    assert.deepEqual(after, { sub: before.sub });
    assert.deepEqual(Object.keys(other), ['sub']);
    assert.notEqual(other.sub, before.sub);
  });

  test(`${document}: a mini-program and its backend`, async (t) => {
    try {
      await run('go', ['version']);
    } catch {
      t.skip('there is no go command to build the backend with');
      return;
    }
    const server = await startDev();
    t.after(() => server.stop());
    const [code] = await blocks(document, 'go-decrypt');
    const [port] = await freePorts(1);
    const dir = await mkdtemp(join(tmpdir(), 'wxidp-e2e-'));
    t.after(() => rm(dir, { recursive: true }));
    await writeFile(join(dir, 'main.go'), code
      .replace('http://127.0.0.1:8080', server.issuer)
      .replace('127.0.0.1:3000', `127.0.0.1:${port}`));
    await run('go', ['build', '-o', join(dir, 'backend'), join(dir, 'main.go')]);
    const backend = new Program(join(dir, 'backend'), [], { ORDERS_API_SECRET: server.backendSecret });
    t.after(async () => {
      backend.kill();
      await backend.exited;
    });
    const api = `http://127.0.0.1:${port}`;
    await backend.until('listening', async () => (await fetch(api)).status === 404);

    const control = (path, parameters) => fetch(`${server.simulator}/control/${path}`, {
      method: 'POST', body: new URLSearchParams({ appid: appID, user: 'alice', ...parameters }),
    });
    const statuses = [];
    const wx = {
      login: ({ success, fail }) => server.login('alice').then((jsCode) => success({ code: jsCode }), fail),
      // The simulator has no step counter; any open data takes the same way.
      getWeRunData: async () => (await control('opendata', { kind: 'userinfo' })).json(),
      request: ({ url, method, header, data, success, fail }) =>
        fetch(url, { method, headers: header, body: new URLSearchParams(data).toString() })
          .then(async (response) => {
            if (url.startsWith(api)) statuses.push(response.status);
            const text = await response.text();
            success({ statusCode: response.status, data: response.ok ? JSON.parse(text) : text });
          }).catch(fail),
    };
    const [page] = await blocks(document, 'mini-program');
    const stepsToday = new Function('wx', `${page
      .replace('https://id.example.com', server.issuer)
      .replace('https://api.shop.example', api)}; return stepsToday`)(wx);
    assert.equal((await stepsToday()).watermark.appid, appID);
    assert.deepEqual(statuses, [200]);
    // Once WeChat has replaced the session_key, the page signs in again.
    assert.equal((await control('session_key/rotate')).status, 200);
    assert.equal((await stepsToday()).watermark.appid, appID);
    assert.deepEqual(statuses, [200, 409, 200]);
  });
}

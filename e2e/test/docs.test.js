// The snippets of the documentation do what it says.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import * as client from 'openid-client';
import { blocks } from '../lib/docs.js';
import { discover, signIn } from '../lib/oidc.js';
import { backend, freePorts, miniProgram, Program, root, startDev } from '../lib/server.js';

const readmes = ['README.md', 'README.zh-CN.md'];
const guides = ['docs/resource-servers.md', 'docs/resource-servers.zh-CN.md'];

const server = await startDev();
after(() => server.stop());

const config = await discover(server.issuer, miniProgram);
const backendConfig = await discover(server.issuer, backend, { auth: client.ClientSecretBasic(server.backendSecret) });

for (const document of readmes) {
  test(`${document}: the first sign-in by curl`, async () => {
    const script = (await blocks(document, 'curl')).join('\n')
      .replaceAll('http://127.0.0.1:8080', server.issuer)
      .replaceAll('http://127.0.0.1:8090', server.simulator)
      .replaceAll('wxidp-dev/', `${server.dir}/`);
    const { stdout } = await promisify(execFile)('/bin/sh', ['-e', '-c', script]);
    const answers = stdout.trim().split('\n').map((line) => JSON.parse(line));
    assert.deepEqual(Object.keys(answers[0]), ['access_token', 'token_type', 'expires_in', 'scope', 'refresh_token', 'id_token']);
    assert.ok(answers[1].refresh_token.startsWith('wxrt_'));
    assert.equal(answers[2].active, true);
    assert.deepEqual(answers[3], { active: false });
    assert.equal(answers.length, 4);
  });

  test(`${document}: signing in from a mini-program`, async () => {
    const [code] = await blocks(document, 'mini-program');
    const wx = {
      login: ({ success, fail }) => server.login('alice').then((jsCode) => success({ code: jsCode }), fail),
      request: ({ url, method, header, data, success, fail }) =>
        fetch(url, { method, headers: header, body: new URLSearchParams(data).toString() })
          .then(async (response) => success({ statusCode: response.status, data: await response.json() })).catch(fail),
    };
    const signInByWeChat = new Function('wx', `${code.replace('https://id.example.com', server.issuer)}; return signIn`)(wx);
    const tokens = await signInByWeChat();
    assert.equal(tokens.token_type, 'Bearer');
    assert.ok(tokens.refresh_token);
    wx.login = ({ success }) => success({ code: 'spent' });
    await assert.rejects(signInByWeChat(), { error: 'invalid_grant' });
  });
}

/** Runs the server of a snippet and returns a function that requests its /orders. */
async function runSnippet(t, document, name) {
  const [code] = await blocks(document, name);
  const [port] = await freePorts(1);
  const dir = await mkdtemp(join(tmpdir(), 'wxidp-e2e-'));
  await symlink(join(root, 'e2e', 'node_modules'), join(dir, 'node_modules'));
  await writeFile(join(dir, 'snippet.mjs'), code
    .replace('http://127.0.0.1:8080', server.issuer)
    .replace('listen(3000,', `listen(${port},`));
  const program = new Program(process.execPath, [join(dir, 'snippet.mjs')]);
  t.after(async () => {
    program.kill();
    await program.exited;
    await rm(dir, { recursive: true });
  });
  const orders = (token) =>
    fetch(`http://127.0.0.1:${port}/orders`, { headers: token && { authorization: `Bearer ${token}` } });
  await program.until('listening', async () => (await orders()).status === 401);
  return orders;
}

for (const document of readmes) {
  test(`${document}: a resource server in Node`, async (t) => {
    const orders = await runSnippet(t, document, 'node');
    const tokens = await signIn(config, await server.login('alice'));
    const response = await orders(tokens.access_token);
    assert.equal(response.status, 200);
    assert.equal(await response.text(), `orders of ${tokens.claims().sub}\n`);
    for (const wrong of [undefined, 'garbage', tokens.id_token, tokens.refresh_token, `${tokens.access_token}x`]) {
      assert.equal((await orders(wrong)).status, 401, wrong);
    }
  });
}

for (const document of guides) {
  test(`${document}: a resource server in Node with scopes`, async (t) => {
    const orders = await runSnippet(t, document, 'node-scope');
    const own = await client.clientCredentialsGrant(backendConfig, { scope: 'orders.read' });
    const response = await orders(own.access_token);
    assert.equal(response.status, 200);
    assert.equal(await response.text(), `orders of ${backend}\n`);
    const tokens = await signIn(config, await server.login('alice'), { scope: 'openid' });
    assert.equal((await orders(tokens.access_token)).status, 403);
    for (const wrong of [undefined, 'garbage', tokens.id_token]) {
      assert.equal((await orders(wrong)).status, 401, wrong);
    }
  });
}

test('every link of the documentation leads somewhere', async () => {
  const documents = [...(await readdir(root)), ...(await readdir(join(root, 'docs'))).map((name) => `docs/${name}`)]
    .filter((name) => name.endsWith('.md'));
  for (const document of documents) {
    const text = (await readFile(join(root, document), 'utf8')).replace(/^```[^]*?^```$/gm, '');
    for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue;
      const [path, anchor] = target.split('#');
      const file = path ? join(root, dirname(document), path) : join(root, document);
      await assert.doesNotReject(stat(file), `${document}: ${target}`);
      if (!anchor) continue;
      const headings = [...(await readFile(file, 'utf8')).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
        heading.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, '').replaceAll(' ', '-'));
      assert.ok(headings.includes(decodeURIComponent(anchor)), `${document}: ${target}`);
    }
  }
});

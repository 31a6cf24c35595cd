// The recipes of docs/accounts and what the READMEs take from them do what they say, in both languages.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { decodeJwt } from 'jose';
import * as client from 'openid-client';
import { blocks } from '../lib/docs.js';
import { discover, refusal, signIn } from '../lib/oidc.js';
import { appID, audience, freePorts, Program, startDev, startServe } from '../lib/server.js';
import { shell } from '../lib/shell.js';

const run = promisify(execFile);
const documents = ['docs/accounts.md', 'docs/accounts.zh-CN.md'];

for (const document of ['README.md', 'README.zh-CN.md']) {
  test(`${document}: binding`, async (t) => {
    const server = await startDev();
    t.after(() => server.stop());
    const [added, tokens] = await shell(server, document, ['binding']);
    const { sub } = decodeJwt(JSON.parse(tokens).access_token);
    assert.equal(added, `Added ${sub}`);
  });
}

for (const document of documents) {
  test(`${document}: the requests by curl`, async (t) => {
    const server = await startDev();
    t.after(() => server.stop());
    const lines = await shell(server, document,
      ['prepare', 'several-apps', 'binding', 'unbinding', 'last-way-in', 'phone', 'wechat-phone']);
    const [added] = lines.splice(2, 1);
    const [one, two, wrong, bound, silent, unbound, last, before, bob, carol, ...rest] = lines.map((line) => JSON.parse(line));
    assert.deepEqual(rest, []);
    assert.equal(one.sub, two.sub);
    assert.match(added, /^Added /);
    assert.equal(wrong.error, 'invalid_grant');
    assert.ok(added.includes(bound.sub) && bound.nickname);
    assert.deepEqual(silent, { sub: bound.sub });
    assert.deepEqual(unbound, { unbound: true, wechat_appids: [appID] });
    assert.equal(last.error, 'last_way_in');
    assert.deepEqual(before, { sub: bob.sub });
    for (const user of [bob, carol]) assert.equal(user.phone_number_verified, true);
  });

  test(`${document}: binding and phone number in a mini-program`, async (t) => {
    const server = await startDev();
    t.after(() => server.stop());
    await server.command(['users', 'add', '--username', 'ming'], 'correct horse battery\n');
    let user = 'ming';
    let logins = 0;
    const wx = {
      login: ({ success, fail }) => {
        logins++;
        server.login(user).then((code) => success({ code }), fail);
      },
      request: ({ url, method, header, data, success, fail }) =>
        fetch(url, { method, headers: header, body: new URLSearchParams(data).toString() })
          .then(async (response) => success({ statusCode: response.status, data: await response.json() })).catch(fail),
    };
    const code = (await blocks(document, 'mini-program')).join('\n').replace('https://id.example.com', server.issuer);
    const page = new Function('wx', `${code}; return { signIn, bind, prepare, onPhoneNumber }`)(wx);

    const bare = await page.signIn();
    await assert.rejects(page.bind('ming', 'wrong'), { error: 'invalid_grant' });
    const bound = await page.bind('ming', 'correct horse battery');
    assert.notEqual(decodeJwt(bound.access_token).sub, decodeJwt(bare.access_token).sub);
    assert.deepEqual(decodeJwt(bound.id_token).amr, ['wechat', 'pwd']);

    user = 'bob';
    await page.prepare();
    logins = 0;
    assert.equal(await page.onPhoneNumber({ detail: { errMsg: 'getPhoneNumber:fail user deny' } }), null);
    const first = await page.onPhoneNumber({ detail: { code: await server.tap('bob') } });
    assert.equal(logins, 0); // the code from before the tap did
    assert.deepEqual(decodeJwt(first.id_token).amr, ['wechat', 'wechat_phone']);
    await page.onPhoneNumber({ detail: { code: await server.tap('bob') } });
    assert.equal(logins, 1); // and was not sent twice
  });

  test(`${document}: the verifier`, async (t) => {
    try {
      await run('go', ['version']);
    } catch {
      t.skip('there is no go command to build it with');
      return;
    }
    const [code] = await blocks(document, 'verifier');
    const [port] = await freePorts(1);
    const secret = randomBytes(32).toString('hex');
    const dir = await mkdtemp(join(tmpdir(), 'wxidp-e2e-'));
    t.after(() => rm(dir, { recursive: true }));
    await writeFile(join(dir, 'main.go'), code.replace('127.0.0.1:9000', `127.0.0.1:${port}`));
    await run('go', ['vet', join(dir, 'main.go')]);
    await run('go', ['build', '-o', join(dir, 'verifier'), join(dir, 'main.go')]);
    const verifier = new Program(join(dir, 'verifier'), [], { VERIFIER_SECRET: secret });
    t.after(async () => {
      verifier.kill();
      await verifier.exited;
    });
    const url = `http://127.0.0.1:${port}/verify`;
    const unsigned = () => fetch(url, { method: 'POST', body: '{"username":"ann","password":"correct horse"}' });
    await verifier.until('listening', async () => (await unsigned()).status === 401);

    const server = await startServe({
      config: `accounts: { verifier: { url: "${url}", secret_file: secrets/verifier } }
clients:
  - client_id: shop-mini
    type: public
    wechat_appid: ${appID}
    auto_create: false
    grant_types: [wechat_jscode, refresh_token]
    id_token_signed_response_alg: ES256
    scopes: [openid, profile, roles, external_id, tier]
    default_scopes: [openid, roles, tier]
    audience: [${audience}]
`,
      files: { 'secrets/verifier': `${secret}\n` },
    });
    t.after(() => server.stop());
    const config = await discover(server.issuer, 'shop-mini');
    const bind = async (parameters) => signIn(config, await server.login('ann'), parameters);

    assert.equal((await refusal(() => bind({}))).error, 'account_required');
    assert.equal((await refusal(() => bind({ username: 'ann', password: 'wrong' }))).error, 'invalid_grant');
    const bound = await bind({ username: 'ann', password: 'correct horse', scope: 'openid profile roles external_id tier' });
    const said = ({ roles, external_id, tier }) => ({ roles, external_id, tier });
    const all = { roles: ['buyer'], external_id: '42', tier: 'gold' };
    assert.deepEqual(said(decodeJwt(bound.access_token)), all);
    assert.deepEqual(said(bound.claims()), all);
    const info = await client.fetchUserInfo(config, bound.access_token, bound.claims().sub);
    assert.deepEqual(said(info), all);
    assert.equal(info.nickname, 'Ann');

    const silent = await bind({});
    assert.equal(silent.claims().sub, bound.claims().sub);
    assert.deepEqual(said(decodeJwt(silent.access_token)), { ...all, external_id: undefined });

    // Out of order says nothing about the password, and silent sign-ins go on.
    verifier.kill();
    await verifier.exited;
    const code2 = await server.login('ann');
    const response = await fetch(`${server.issuer}/oauth2/token`, {
      method: 'POST',
      body: new URLSearchParams({ grant_type: 'wechat_jscode', client_id: 'shop-mini', js_code: code2, username: 'ann', password: 'correct horse' }),
    });
    assert.equal(response.status, 503);
    assert.ok(response.headers.has('retry-after'));
    assert.equal((await response.json()).error, 'temporarily_unavailable');
    assert.equal((await bind({})).claims().sub, bound.claims().sub);
  });
}

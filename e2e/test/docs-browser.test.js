// The recipes of docs/browser-sign-in and what the READMEs take from them do what they say, in both languages.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { decodeJwt } from 'jose';
import { blocks } from '../lib/docs.js';
import { freePorts, Program, root, startDev, startServe } from '../lib/server.js';
import { shell } from '../lib/shell.js';

const documents = ['docs/browser-sign-in.md', 'docs/browser-sign-in.zh-CN.md'];
const callback = 'http://127.0.0.1:3000/callback';

/** A page of the issuer with a code, as a browser without cookies gets it. */
async function shownCode(server) {
  const page = await fetch(`${server.issuer}/account`, { redirect: 'manual' });
  const cookie = page.headers.getSetCookie().map((line) => line.split(';')[0]).join('; ');
  const address = new URL(page.headers.get('location'), server.issuer).href;
  const text = await (await fetch(address, { headers: { cookie } })).text();
  return {
    link: /id="scan-link"[^>]* href="([^"]+)"/.exec(text)[1],
    number: /id="scan-number">(\d\d)</.exec(text)[1],
    state: async () => (await (await fetch(`${address}/state`, { headers: { cookie } })).json()).state,
  };
}

/** Fills in what a person reads off the page. */
const fillIn = (code) => (script) => {
  const filled = script.replace(/LINK='[^']*' NUMBER=00/, `LINK='${code.link}' NUMBER=${code.number}`);
  assert.notEqual(filled, script);
  return filled;
};

for (const document of ['README.md', 'README.zh-CN.md']) {
  test(`${document}: an account for the browser, and a scan`, async (t) => {
    const server = await startDev();
    t.after(() => server.stop());
    assert.match((await shell(server, document, ['browser'])).join('\n'), /^Added \S+$/);
    const code = await shownCode(server);
    const [context, approval] = (await shell(server, document, ['scan'], fillIn(code))).map((line) => JSON.parse(line));
    assert.equal(context.kind, 'scan');
    assert.equal(approval.approved, true);
    assert.equal(await code.state(), 'approved');
  });
}

test('wxidp dev prints commands that do the same', async (t) => {
  const server = await startDev();
  t.after(() => server.stop());
  // It answers a little earlier than it has printed everything.
  for (const deadline = Date.now() + 10_000; !server.output().includes('Ctrl-C'); await sleep(20)) assert.ok(Date.now() < deadline);
  const [, commands] = /^(# 6\.[^]*?)^discovery /m.exec(server.output());
  assert.ok(commands.includes(`${server.issuer}/account`));
  const code = await shownCode(server);
  const { stdout } = await promisify(execFile)('/bin/sh', ['-e', '-c', fillIn(code)(commands)], { timeout: 60_000 });
  assert.match(stdout, /^Added \S+\n\{/);
  assert.equal(await code.state(), 'approved');
});

for (const document of documents) {
  test(`${document}: a sign-in by curl`, async (t) => {
    const server = await startDev();
    t.after(() => server.stop());
    const [added, back, tokens, user, again, ...rest] = await shell(server, document, ['curl']);
    assert.deepEqual(rest, []);
    const first = new URL(back);
    assert.equal(first.origin + first.pathname, callback);
    assert.equal(first.searchParams.get('iss'), server.issuer);
    const claims = decodeJwt(JSON.parse(tokens).id_token);
    assert.equal(added, `Added ${claims.sub}`);
    assert.equal(claims.acr, 'urn:wxidp:acr:password');
    assert.deepEqual(claims.amr, ['pwd']);
    assert.equal(JSON.parse(user).sub, claims.sub);
    const second = new URL(again);
    assert.ok(second.searchParams.get('code'));
    assert.equal(second.searchParams.get('state'), first.searchParams.get('state'));
  });

  test(`${document}: an application in Node`, async (t) => {
    const [port] = await freePorts(1);
    const server = await startServe({
      config: `clients:
  - client_id: shop-web
    type: confidential
    client_secret_file: secrets/shop-web
    grant_types: [authorization_code, refresh_token]
    redirect_uris: ["http://127.0.0.1:${port}/callback"]
    scopes: [openid, profile]
`,
      files: { 'secrets/shop-web': randomBytes(32).toString('base64url') },
    });
    t.after(() => server.stop());
    const added = await server.command(['users', 'add', '--username', 'lin', '--nickname', 'Lin'], 'correct horse battery\n');

    const [code] = await blocks(document, 'node');
    const dir = await mkdtemp(join(tmpdir(), 'wxidp-e2e-'));
    await symlink(join(root, 'e2e', 'node_modules'), join(dir, 'node_modules'));
    await writeFile(join(dir, 'app.mjs'), code
      .replaceAll('http://127.0.0.1:8080', server.issuer)
      .replaceAll('wxidp-dev/', `${server.dir}/`)
      .replaceAll('127.0.0.1:3000', `127.0.0.1:${port}`)
      .replace('listen(3000,', `listen(${port},`));
    const program = new Program(process.execPath, [join(dir, 'app.mjs')]);
    t.after(async () => {
      program.kill();
      await program.exited;
      await rm(dir, { recursive: true });
    });
    const app = `http://127.0.0.1:${port}`;
    await program.until('listening', async () => (await fetch(`${app}/`)).status === 404);

    // Every host of this machine has the same cookies here; ports do not tell them apart.
    const cookies = new Map();
    const browse = async (url, form) => {
      const response = await fetch(url, {
        redirect: 'manual',
        headers: { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
        ...(form && { method: 'POST', body: new URLSearchParams(form) }),
      });
      for (const line of response.headers.getSetCookie()) {
        const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
        cookies.set(name, value);
      }
      const location = response.headers.get('location');
      return { status: response.status, location: location && new URL(location, url).href, text: await response.text() };
    };
    const signIn = async () => {
      const { location: authorize } = await browse(`${app}/login`);
      return (await browse(authorize)).location;
    };
    /** Presses a button of a page. */
    const press = async (page, button, values = {}) => {
      const { text } = await browse(page);
      const [, csrf] = /name="csrf" value="([^"]+)"/.exec(text);
      return browse(`${page}/${button}`, { csrf, ...values });
    };

    const cancelled = await press(await signIn(), 'cancel');
    assert.deepEqual(await browse(cancelled.location), { status: 403, location: null, text: 'Not signed in: access_denied\n' });

    const page = await signIn();
    await press(page, 'password', { username: 'lin', password: 'correct horse battery' });
    const agreed = await press(page, 'allow');
    const welcome = await browse(agreed.location);
    assert.equal(welcome.status, 200, welcome.text);
    assert.match(welcome.text, /^Hello .+, you are \S+\n$/);
    assert.ok(welcome.text.includes(added.trim().replace('Added ', '')));
    assert.equal((await browse(agreed.location)).status, 404); // the sign-in is not under way any more
  });
}

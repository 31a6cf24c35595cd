// The recipes of docs/scan do what they say, in both languages.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blocks } from '../lib/docs.js';
import { startDev } from '../lib/server.js';
import { shell } from '../lib/shell.js';

for (const document of ['docs/scan.md', 'docs/scan.zh-CN.md']) {
  test(`${document}: a device and a browser by curl`, async (t) => {
    const server = await startDev();
    t.after(() => server.stop());
    const lines = await shell(server, document, ['device', 'phone', 'approve-device', 'approve-browser']);
    const [device, pending, asks, approved, tokens, browser, scanned, state, ...rest] = lines.map((line) => JSON.parse(line));
    assert.deepEqual(rest, []);
    assert.match(device.user_code, /^[A-Z]{4}-[A-Z]{4}$/);
    assert.equal(pending.error, 'authorization_pending');
    assert.equal(asks.client_id, 'shop-tv');
    assert.ok(asks.choices.includes(device.user_code.slice(5)));
    assert.ok(approved.approved);
    assert.equal(tokens.scope, 'openid profile');
    assert.equal(browser.kind, 'scan');
    assert.ok(scanned.approved);
    assert.deepEqual(state, { state: 'approved' });
  });

  test(`${document}: the page of the mini-program`, async (t) => {
    const server = await startDev();
    t.after(() => server.stop());
    const [code] = await blocks(document, 'mini-program');
    const open = async (options) => {
      let page;
      const wx = {
        login: ({ success, fail }) => server.login('alice').then((jsCode) => success({ code: jsCode }), fail),
        request: ({ url, method, header, data, success, fail }) =>
          fetch(url, { method, headers: header, body: new URLSearchParams(data).toString() })
            .then(async (response) => success({ statusCode: response.status, data: await response.json() })).catch(fail),
      };
      new Function('wx', 'Page', code.replace('https://id.example.com', server.issuer))(wx, (given) => { page = given; });
      page.setData = (changes) => Object.assign(page.data, changes);
      await page.onLoad(options);
      return page;
    };
    const authorize = async () => (await fetch(`${server.issuer}/oauth2/device_authorization`, {
      method: 'POST', body: new URLSearchParams({ client_id: 'shop-tv' }),
    })).json();
    const poll = async (device) => (await fetch(`${server.issuer}/oauth2/token`, {
      method: 'POST',
      body: new URLSearchParams({
        client_id: 'shop-tv', device_code: device.device_code, grant_type: 'urn:ietf:params:oauth:grant-type:device_code',
      }),
    })).json();

    let device = await authorize();
    let page = await open({ q: encodeURIComponent(device.verification_uri_complete) });
    assert.equal(page.data.asks.client_name, '小店电视版');
    await page.approve({ currentTarget: { dataset: { number: device.user_code.slice(5) } } });
    assert.equal(page.data.message, '已确认');
    assert.ok((await poll(device)).access_token);

    // typed, and by a link whose ticket is a user code
    device = await authorize();
    page = await open({ scene: encodeURIComponent(device.user_code) });
    await page.approve({ currentTarget: { dataset: {} }, detail: { value: { number: device.user_code.slice(5).toLowerCase() } } });
    assert.equal(page.data.message, '已确认');

    device = await authorize();
    page = await open({ scene: device.user_code });
    await page.cancel();
    assert.equal(page.data.message, '已取消');
    assert.equal((await poll(device)).error, 'access_denied');

    page = await open({ scene: 'AAAAAAAAAAAAAAAAAAAAAA' });
    assert.equal(page.data.asks, null);
    assert.match(page.data.message, /已过期/);
  });
}

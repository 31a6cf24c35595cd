// A device's sign-in with openid-client, approved on a phone by the user of a
// mini-program.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import * as client from 'openid-client';
import { discover, refusal, signIn } from '../lib/oidc.js';
import { newPerson } from '../lib/person.js';
import { miniProgram, startDev } from '../lib/server.js';

const server = await startDev();
after(() => server.stop());
const tv = await discover(server.issuer, 'shop-tv', { metadata: { id_token_signed_response_alg: 'ES256' } });
const mini = await discover(server.issuer, miniProgram);
const bounded = () => ({ signal: AbortSignal.timeout(20_000) }); // a device would wait longer

/** Returns what a phone gets for a request about a device: its status and body. */
async function ask(path, tokens, form) {
  const response = await fetch(`${server.issuer}/device/${path}`, {
    method: 'POST', body: new URLSearchParams(form), headers: { Authorization: `Bearer ${tokens.access_token}` },
  });
  return { status: response.status, ...await response.json() };
}

const begin = () => client.initiateDeviceAuthorization(tv, { scope: 'openid profile' });
const pending = (device) => refusal(() => client.genericGrantRequest(tv,
  'urn:ietf:params:oauth:grant-type:device_code', { device_code: device.device_code }));

/** A mini-program's user who may decide about other screens. */
const phone = async (user) => signIn(mini, await server.login(user), { scope: 'openid device.approve' });

// Devices wait for seconds: all of these at once.
describe('a device', { concurrency: true }, () => {
  test('approved on a phone by the right number', async () => {
    const alice = await phone('alice');
    const device = await begin();
    assert.equal((await pending(device)).error, 'authorization_pending');
    const ticket = device.verification_uri_complete; // as the phone scans it
    const context = await ask('context', alice, { ticket });
    assert.equal(context.status, 200);
    assert.equal(context.client_id, 'shop-tv');
    assert.deepEqual(context.scopes, ['openid', 'profile']);
    const number = context.choices.find((choice) => device.user_code.endsWith(choice));
    assert.deepEqual(await ask('approve', alice, { ticket, number }), {
      status: 200, approved: true, kind: 'device', client_name: context.client_name,
    });
    const tokens = await client.pollDeviceAuthorizationGrant(tv, device, undefined, bounded());
    const { sub } = tokens.claims();
    assert.equal(sub, alice.claims().sub);
    assert.equal((await client.fetchUserInfo(tv, tokens.access_token, sub)).sub, sub);
    assert.equal((await client.refreshTokenGrant(tv, tokens.refresh_token)).claims().sub, sub);
  });

  test('approved in a browser, for a key of the device', async () => {
    const bob = await newPerson(server, 'bob');
    const DPoP = client.getDPoPHandle(tv, await client.randomDPoPKeyPair('ES256'));
    const device = await begin();
    const page = await bob.submit(await bob.visit(device.verification_uri_complete), 'device-next');
    const done = await bob.go(page.url);
    assert.match(done.text, /id="device-done"/);
    const tokens = await client.pollDeviceAuthorizationGrant(tv, device, undefined, { DPoP, ...bounded() });
    assert.equal(tokens.token_type, 'dpop');
    await client.refreshTokenGrant(tv, tokens.refresh_token, undefined, { DPoP });
  });

  test('denied on the phone, and a wrong number', async () => {
    const carol = await phone('carol');
    const decisions = {
      deny: () => ({}),
      approve: (context, device) => ({ number: context.choices.find((choice) => !device.user_code.endsWith(choice)) }),
    };
    for (const [path, form] of Object.entries(decisions)) {
      const device = await begin();
      const ticket = device.user_code; // as carol types it
      const context = await ask('context', carol, { ticket });
      assert.equal((await ask(path, carol, { ticket, ...form(context, device) })).status, path === 'deny' ? 200 : 409);
      assert.equal((await pending(device)).error, 'access_denied');
    }
  });
});

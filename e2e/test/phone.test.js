// Phone numbers: asked for when they are needed, and as accounts.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { decodeJwt } from 'jose';
import * as client from 'openid-client';
import { discover, phoneSignIn, refusal, signIn } from '../lib/oidc.js';
import { appID, appID2, audience, miniProgram, miniProgram2, startDev, startServe } from '../lib/server.js';

const server = await startDev();
after(() => server.stop());

const config = await discover(server.issuer, miniProgram);
const config2 = await discover(server.issuer, miniProgram2);

const scope = 'openid phone';
const info = (tokens) => client.fetchUserInfo(config, tokens.access_token, tokens.claims().sub);
const asked = () => server.weChatRequests('/wxa/business/getuserphonenumber');

test('discovery announces the grant and the scope', () => {
  assert.ok(config.serverMetadata().grant_types_supported.includes('wechat_phone'));
  assert.ok(config.serverMetadata().scopes_supported.includes('phone'));
});

test('a phone_code in a sign-in records the number', async () => {
  const before = await info(await signIn(config, await server.login('alice'), { scope }));
  assert.deepEqual(Object.keys(before), ['sub']);

  const tokens = await signIn(config, await server.login('alice'), {
    scope, phone_code: await server.tap('alice', { phone: '13800138000' }),
  });
  assert.deepEqual(tokens.claims().amr, ['wechat', 'wechat_phone']);
  assert.deepEqual(await info(tokens), { sub: before.sub, phone_number: '+8613800138000', phone_number_verified: true });
  for (const token of [tokens.access_token, tokens.id_token]) {
    assert.doesNotMatch(JSON.stringify(decodeJwt(token)), /13800138000/);
  }
  const narrow = await info(await signIn(config, await server.login('alice'), { scope: 'openid profile' }));
  assert.equal(narrow.phone_number, undefined);
});

test('a number that is known is not asked for again, unless it is to change', async () => {
  const before = await asked();
  const kept = await signIn(config, await server.login('alice'), {
    scope, phone_code: await server.tap('alice', { phone: '13900139000' }),
  });
  assert.equal((await info(kept)).phone_number, '+8613800138000');
  assert.equal(await asked(), before);
  const changed = await signIn(config, await server.login('alice'), {
    scope, phone_code: await server.tap('alice'), phone_change: 'true',
  });
  assert.equal((await info(changed)).phone_number, '+8613900139000');
  assert.equal(await asked(), before + 1);
});

test("an attacker's js_code with a victim's phone_code gets nothing", async () => {
  const mallory = await signIn(config, await server.login('mallory'), { scope });
  for (const attempt of [
    async (stolen) => signIn(config, await server.login('mallory'), { phone_code: stolen }),
    async (stolen) => phoneSignIn(config, await server.login('mallory'), stolen),
  ]) {
    const stolen = await server.tap('victim');
    const before = await asked();
    for (let i = 0; i < 2; i++) { // the second time WeChat is not asked
      const err = await refusal(() => attempt(stolen));
      assert.equal(err.status, 400);
      assert.equal(err.error, 'invalid_grant');
    }
    assert.equal(await asked(), before + 1);
  }
  assert.deepEqual(Object.keys(await info(mallory)), ['sub']);

  // The victim is served as if nothing had been.
  const victim = await phoneSignIn(config, await server.login('victim'), await server.tap('victim'), { scope });
  assert.notEqual(victim.claims().sub, mallory.claims().sub);
  assert.ok((await info(victim)).phone_number);
});

test('the two codes are not mistaken for each other', async () => {
  const jsCode = await server.login('bob');
  const err = await refusal(async () => signIn(config, jsCode, { phone_code: await server.login('bob') }));
  assert.equal(err.error, 'invalid_grant');
  assert.match(err.error_description, /phone_code/);
  assert.equal((await refusal(async () => signIn(config, await server.tap('bob')))).error, 'invalid_grant');
});

test('a number is an account: wechat_phone', async () => {
  const first = await phoneSignIn(config, await server.login('carol'), await server.tap('carol'), { scope });
  const { sub, amr } = first.claims();
  assert.deepEqual(amr, ['wechat', 'wechat_phone']);
  assert.ok((await info(first)).phone_number_verified);
  assert.equal((await signIn(config, await server.login('carol'))).claims().sub, sub); // silent from now on
  // The unionid leads to it in the second mini-program.
  const second = await phoneSignIn(config2, await server.login('carol', appID2), await server.tap('carol', { appid: appID2 }));
  assert.equal(second.claims().sub, sub);

  // Both codes belong to it, and passwords do not.
  const jsCode = await server.login('carol');
  const phoneCode = await server.tap('carol');
  for (const parameters of [{ js_code: jsCode }, { phone_code: phoneCode }, { js_code: jsCode, phone_code: phoneCode, username: 'a', password: 'b' }]) {
    const err = await refusal(() => client.genericGrantRequest(config, 'wechat_phone', parameters));
    assert.equal(err.error, 'invalid_request');
  }
});

test('a number alone opens no account that is in use', async () => {
  const owner = await phoneSignIn(config, await server.login('dave'), await server.tap('dave', { phone: '13700137000' }), { scope });
  // The carrier has given the number to somebody else.
  for (const attempt of [
    async (code) => phoneSignIn(config, await server.login('newcomer'), code),
    async (code) => signIn(config, await server.login('newcomer'), { phone_code: code }),
  ]) {
    const code = await server.tap('newcomer', { phone: '13700137000' });
    const err = await refusal(() => attempt(code));
    assert.equal(err.status, 409);
    assert.equal(err.error, 'account_exists');
  }
  const newcomer = await signIn(config, await server.login('newcomer'), { scope }); // without the number
  assert.notEqual(newcomer.claims().sub, owner.claims().sub);
  assert.equal((await info(newcomer)).phone_number, undefined);
  assert.equal((await info(owner)).phone_number, '+8613700137000');
  await client.refreshTokenGrant(config, owner.refresh_token);
});

test('a number alone opens an account only after all its WeChat users are unbound', async () => {
  const phone = '13600136000';
  const owner = await phoneSignIn(config, await server.login('erin'), await server.tap('erin', { phone }));
  await client.tokenRevocation(config, owner.refresh_token); // no sign-in is alive
  const byNumber = async () => phoneSignIn(config2, await server.login('heir', appID2), await server.tap('heir', { appid: appID2, phone }));
  const err = await refusal(byNumber); // of another mini-program, too
  assert.equal(err.status, 409);
  assert.equal(err.error, 'account_exists');

  // The way out: the WeChat user of before signs in and unbinds there.
  const back = await signIn(config, await server.login('erin'), { scope: 'openid profile' });
  const response = await fetch(`${server.issuer}/account/unbind`, {
    method: 'POST',
    headers: { authorization: `Bearer ${back.access_token}` },
    body: new URLSearchParams({ js_code: await server.login('erin'), everywhere: 'true' }),
  });
  assert.equal(response.status, 200);
  assert.equal((await byNumber()).claims().sub, owner.claims().sub);
  assert.notEqual((await signIn(config, await server.login('erin'))).claims().sub, owner.claims().sub);
});

test('a client without use for numbers may send no phone_code', async (t) => {
  const plain = await startServe({
    config: `clients:
  - client_id: no-phones
    type: public
    wechat_appid: ${appID}
    grant_types: [wechat_jscode, refresh_token]
    id_token_signed_response_alg: ES256
    scopes: [openid, profile]
    default_scopes: [openid]
    audience: [${audience}]
`,
  });
  t.after(() => plain.stop());
  const noPhones = await discover(plain.issuer, 'no-phones');
  const jsCode = await plain.login('alice');
  const phoneCode = await plain.tap('alice');
  const err = await refusal(() => signIn(noPhones, jsCode, { phone_code: phoneCode }));
  assert.equal(err.status, 400);
  assert.equal(err.error, 'invalid_request');
  assert.match(err.error_description, /phone_code/);
  for (const path of ['/sns/jscode2session', '/wxa/business/getuserphonenumber']) {
    assert.equal(await plain.weChatRequests(path), 0, path);
  }
  await signIn(noPhones, jsCode); // neither code is spent
});

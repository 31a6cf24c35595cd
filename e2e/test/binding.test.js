// A person with an account keeps it: binding by username and password,
// unbinding, and one user in several mini-programs.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, test } from 'node:test';
import * as client from 'openid-client';
import { discover, refusal, signIn } from '../lib/oidc.js';
import { appID, appID2, audience, backend, miniProgram, miniProgram2, startDev, startServe } from '../lib/server.js';

const password = randomBytes(12).toString('base64url');

const server = await startDev();
after(() => server.stop());

const config = await discover(server.issuer, miniProgram);
const config2 = await discover(server.issuer, miniProgram2);
const backendConfig = await discover(server.issuer, backend, { auth: client.ClientSecretBasic(server.backendSecret) });

/** Signs a user of the first mini-program in with a username and password. */
const bind = async (user, username, parameters = {}) =>
  signIn(config, await server.login(user), { username, password, ...parameters });

const active = async (token) => (await client.tokenIntrospection(backendConfig, token)).active;

/** Posts to the unbind endpoint and returns status and body. */
async function unbind(token, parameters) {
  const response = await fetch(`${server.issuer}/account/unbind`, {
    method: 'POST', headers: { authorization: `Bearer ${token}` }, body: new URLSearchParams(parameters),
  });
  return { status: response.status, body: await response.json() };
}

for (const username of ['ming', 'hong']) {
  await server.command(['users', 'add', '--username', username], `${password}\n`);
}

test('two mini-programs of one Open Platform account have one sub', async () => {
  const one = await signIn(config, await server.login('alice'));
  const two = await signIn(config2, await server.login('alice', appID2));
  assert.equal(one.claims().sub, two.claims().sub);
  assert.notEqual(one.claims().sid, two.claims().sid);
  const other = await signIn(config2, await server.login('bob', appID2));
  assert.notEqual(other.claims().sub, one.claims().sub);
  // A code is good in its own mini-program only.
  const code = await server.login('alice', appID2);
  assert.equal((await refusal(() => signIn(config, code))).error, 'invalid_grant');
});

test('username and password bind a WeChat user to an account', async () => {
  const bare = await signIn(config, await server.login('ming'));
  const wrong = await refusal(() => bind('ming', 'ming', { password: 'wrong' }));
  assert.equal(wrong.status, 400);
  assert.equal(wrong.error, 'invalid_grant');
  assert.equal(await active(bare.access_token), true); // a refusal changes nothing

  const bound = await bind('ming', ' Ming ');
  const { sub, amr } = bound.claims();
  assert.notEqual(sub, bare.claims().sub);
  assert.deepEqual(amr, ['wechat', 'pwd']);

  // The user from before is no more; from now on the js_code does.
  assert.equal(await active(bare.access_token), false);
  assert.equal((await refusal(() => client.refreshTokenGrant(config, bare.refresh_token))).error, 'invalid_grant');
  const silent = await signIn(config, await server.login('ming'));
  assert.equal(silent.claims().sub, sub);
  assert.deepEqual(silent.claims().amr, ['wechat']);
  assert.equal((await bind('ming', 'ming')).claims().sub, sub); // again is no conflict
});

test('a js_code is spent with a wrong password', async () => {
  const code = await server.login('eve');
  assert.equal((await refusal(() => signIn(config, code, { username: 'ming', password: 'wrong' }))).error, 'invalid_grant');
  assert.equal((await refusal(() => signIn(config, code, { username: 'ming', password }))).error, 'invalid_grant');
});

test('what belongs to somebody is not bound again, and nobody is told whose it is', async () => {
  const { sub: ming } = (await bind('ming', 'ming')).claims();
  const { sub: hong } = (await bind('hong', 'hong')).claims();
  for (const [user, username, reason] of [['eve', 'ming', 'account_bound'], ['hong', 'ming', 'identity_bound']]) {
    const err = await refusal(() => bind(user, username));
    assert.equal(err.status, 409);
    assert.equal(err.error, 'already_bound');
    assert.equal(err.cause.reason, reason);
    assert.doesNotMatch(JSON.stringify(err.cause), new RegExp(`${ming}|${hong}|hong`));
  }
  assert.equal((await signIn(config, await server.login('hong'))).claims().sub, hong);
});

test('half of the credentials is refused before the js_code is spent', async () => {
  const code = await server.login('frank');
  for (const parameters of [{ username: 'ming' }, { password }]) {
    assert.equal((await refusal(() => signIn(config, code, parameters))).error, 'invalid_request');
  }
  await signIn(config, code);
});

test('unbinding wants fresh proof and ends what was signed in', async () => {
  const bound = await bind('hong', 'hong', { scope: 'openid profile' });
  for (const [parameters, error] of [
    [{}, 'invalid_request'],
    [{ js_code: await server.login('hong'), username: 'hong', password }, 'invalid_request'],
    [{ js_code: await server.login('mallory') }, 'invalid_grant'],
    [{ username: 'hong', password: 'wrong' }, 'invalid_grant'],
    [{ username: 'ming', password }, 'invalid_grant'],
  ]) {
    const { status, body } = await unbind(bound.access_token, parameters);
    assert.equal(status, 400, JSON.stringify(parameters));
    assert.equal(body.error, error);
  }
  const done = await unbind(bound.access_token, { js_code: await server.login('hong') });
  assert.deepEqual(done, { status: 200, body: { unbound: true, wechat_appids: [appID] } });
  assert.equal(await active(bound.access_token), false);
  assert.equal((await refusal(() => client.refreshTokenGrant(config, bound.refresh_token))).error, 'invalid_grant');
  const bare = await signIn(config, await server.login('hong'), { scope: 'profile' });
  assert.equal(await active(bare.access_token), true);

  // Who has nothing else cannot unbind it.
  const last = await unbind(bare.access_token, { js_code: await server.login('hong') });
  assert.equal(last.status, 409);
  assert.equal(last.body.error, 'last_way_in');
  const narrow = await signIn(config, await server.login('hong'));
  assert.equal((await unbind(narrow.access_token, { js_code: 'x' })).status, 403);
});

test("another app's WeChat user goes by wechat_appid, and a unionid leads it back", async () => {
  const bound = await bind('ming', 'ming', { scope: 'openid profile' });
  let token = bound.access_token;
  const second = await signIn(config2, await server.login('ming', appID2));
  assert.equal(second.claims().sub, bound.claims().sub);
  const parameters = { username: 'ming', password, wechat_appid: appID2 };
  assert.deepEqual(await unbind(token, parameters), { status: 200, body: { unbound: true, wechat_appids: [appID2] } });
  // All sign-ins of the account end, and the other app signs in again, silently.
  assert.equal(await active(second.access_token), false);
  assert.equal(await active(token), false);
  token = (await signIn(config, await server.login('ming'), { scope: 'openid profile' })).access_token;
  const again = await unbind(token, parameters);
  assert.equal(again.status, 400);
  assert.equal(again.body.error, 'invalid_request');
  assert.equal((await signIn(config2, await server.login('ming', appID2))).claims().sub, bound.claims().sub);

  // Everywhere at once, nothing leads back.
  const all = await unbind(token, { username: 'ming', password, everywhere: 'true' });
  assert.equal(all.status, 200);
  assert.deepEqual(all.body.wechat_appids.toSorted(), [appID, appID2].toSorted());
  assert.notEqual((await signIn(config2, await server.login('ming', appID2))).claims().sub, bound.claims().sub);
});

test('auto_create: false lets nobody in without an account', async (t) => {
  const strict = await startServe({
    config: `clients:
  - client_id: members-only
    type: public
    wechat_appid: ${appID}
    auto_create: false
    grant_types: [wechat_jscode, refresh_token]
    id_token_signed_response_alg: ES256
    scopes: [openid]
    default_scopes: [openid]
    audience: [${audience}]
`,
  });
  t.after(() => strict.stop());
  const members = await discover(strict.issuer, 'members-only');
  const nobody = await refusal(async () => signIn(members, await strict.login('ming')));
  assert.equal(nobody.status, 400);
  assert.equal(nobody.error, 'account_required');
  await strict.command(['users', 'add', '--username', 'ming'], `${password}\n`);
  const bound = await signIn(members, await strict.login('ming'), { username: 'ming', password });
  const silent = await signIn(members, await strict.login('ming'));
  assert.equal(silent.claims().sub, bound.claims().sub);
});

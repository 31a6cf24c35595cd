// Refusals reach the caller of openid-client as OAuth errors.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import * as client from 'openid-client';
import { discover, refusal, signIn, withHeaders } from '../lib/oidc.js';
import { backend, miniProgram, startDev } from '../lib/server.js';

const server = await startDev();
after(() => server.stop());

const config = await discover(server.issuer, miniProgram);

test('a js_code works once', async () => {
  const jsCode = await server.login('alice');
  await signIn(config, jsCode);
  const err = await refusal(() => signIn(config, jsCode));
  assert.equal(err.status, 400);
  assert.equal(err.error, 'invalid_grant');
  assert.match(err.error_description, /wx\.login/);
});

test('a js_code that WeChat does not know', async () => {
  const err = await refusal(() => signIn(config, '0a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p'));
  assert.equal(err.error, 'invalid_grant');
  assert.match(err.error_description, /40029/);
});

test('the description comes in Chinese where the caller reads Chinese', async () => {
  const chinese = await discover(server.issuer, miniProgram, { edit: withHeaders({ 'accept-language': 'zh-CN,zh;q=0.9,en;q=0.8' }) });
  for (const [name, request] of [
    ['Accept-Language', () => signIn(chinese, 'used-by-nobody')],
    ['ui_locales', () => signIn(config, 'used-by-nobody-either', { ui_locales: 'zh-CN en' })],
  ]) {
    const err = await refusal(request);
    assert.equal(err.error, 'invalid_grant', name);
    assert.match(err.error_description, /重新调用 wx\.login/, name);
  }
});

test('OAuth errors by their code', async (t) => {
  const { refresh_token: refreshToken } = await signIn(config, await server.login('alice'));
  const { refresh_token: revoked } = await signIn(config, await server.login('alice'));
  await client.tokenRevocation(config, revoked);
  for (const [name, error, request] of [
    ['no js_code', 'invalid_request', () => client.genericGrantRequest(config, 'wechat_jscode', {})],
    ['mock code of the developer tool', 'invalid_grant', () => signIn(config, 'the code is a mock one')],
    ['unknown grant', 'unsupported_grant_type', () => client.genericGrantRequest(config, 'password', { username: 'a', password: 'b' })],
    ['grant of another client', 'unauthorized_client', () => client.clientCredentialsGrant(config)],
    ['scope not granted', 'invalid_scope', () => signIn(config, 'js-code', { scope: 'openid orders.write' })],
    ['audience not granted', 'invalid_target', () => signIn(config, 'js-code', { resource: 'https://other.example' })],
    ['refresh for more scope', 'invalid_scope', () => client.refreshTokenGrant(config, refreshToken, { scope: 'openid profile' })],
    ['refresh with garbage', 'invalid_grant', () => client.refreshTokenGrant(config, 'garbage')],
    ['refresh after revocation', 'invalid_grant', () => client.refreshTokenGrant(config, revoked)],
  ]) {
    await t.test(name, async () => {
      const err = await refusal(request);
      assert.equal(err.status, 400);
      assert.equal(err.error, error);
      assert.ok(err.error_description.length > 10);
    });
  }
  await client.refreshTokenGrant(config, refreshToken); // none of it touched the sign-in
});

test('a wrong client secret', async () => {
  const wrong = 'x'.repeat(43);
  const basic = await discover(server.issuer, backend, { auth: client.ClientSecretBasic(wrong) });
  await assert.rejects(client.clientCredentialsGrant(basic), (err) => {
    assert.ok(err instanceof client.WWWAuthenticateChallengeError);
    assert.equal(err.status, 401);
    assert.equal(err.cause[0].scheme, 'basic');
    return true;
  });
  const post = await discover(server.issuer, backend, { auth: client.ClientSecretPost(wrong) });
  const err = await refusal(() => client.clientCredentialsGrant(post));
  assert.equal(err.status, 401);
  assert.equal(err.error, 'invalid_client');
});

test('a public client may not introspect', async () => {
  const { access_token: token } = await signIn(config, await server.login('alice'));
  const err = await refusal(() => client.tokenIntrospection(config, token));
  assert.equal(err.error, 'invalid_client');
});

/**
 * Returns status, Retry-After and body of a refused request. openid-client
 * reads an OAuth error from 4xx answers only and hands others on as they are.
 */
async function outage(request) {
  try {
    await request;
  } catch (err) {
    const response = err instanceof client.ResponseBodyError ? err.response : err.cause;
    assert.ok(response instanceof Response, `${err}`);
    const { error } = err instanceof client.ResponseBodyError ? err : await response.json();
    return { status: response.status, error, waits: response.headers.has('retry-after') };
  }
  return assert.fail('the request succeeded');
}

test('WeChat out of order', async (t) => {
  const faults = async (method, parameters) => {
    const response = await fetch(`${server.simulator}/control/faults`, { method, body: parameters && new URLSearchParams(parameters) });
    assert.equal(response.status, 200, await response.text());
  };
  const { refresh_token: refreshToken } = await signIn(config, await server.login('alice'));
  for (const [fault, expected] of [
    [{ kind: 'errcode', errcode: 45011 }, { status: 503, error: 'temporarily_unavailable', waits: true }],
    [{ kind: 'html' }, { status: 503, error: 'temporarily_unavailable', waits: true }],
    [{ kind: 'reset' }, { status: 503, error: 'temporarily_unavailable', waits: true }],
    [{ kind: 'errcode', errcode: 40226 }, { status: 400, error: 'access_denied', waits: false }],
    [{ kind: 'errcode', errcode: 40013 }, { status: 500, error: 'server_error', waits: false }],
  ]) {
    await t.test(JSON.stringify(fault), async () => {
      const jsCode = await server.login('alice');
      await faults('POST', fault);
      try {
        assert.deepEqual(await outage(signIn(config, jsCode)), expected);
      } finally {
        await faults('DELETE');
      }
    });
  }
  await client.refreshTokenGrant(config, refreshToken);
  await signIn(config, await server.login('alice'));
});

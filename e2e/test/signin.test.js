// The way of a mini-program through `wxidp dev`: sign in, verify, refresh, ask
// about the token, end the sign-in. No line here is about wxidp in particular.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, test } from 'node:test';
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from 'jose';
import * as client from 'openid-client';
import { discover, signIn, withHeaders } from '../lib/oidc.js';
import { appID, audience, backend, miniProgram, startDev } from '../lib/server.js';

const server = await startDev();
after(() => server.stop());

const config = await discover(server.issuer, miniProgram);
const backendConfig = await discover(server.issuer, backend, { auth: client.ClientSecretBasic(server.backendSecret) });
const jwks = createRemoteJWKSet(new URL(config.serverMetadata().jwks_uri));

const verifyIDToken = (token) =>
  jwtVerify(token, jwks, { issuer: server.issuer, audience: miniProgram, typ: 'JWT', algorithms: ['ES256'] });
const verifyAccessToken = (token) =>
  jwtVerify(token, jwks, { issuer: server.issuer, audience, typ: 'at+jwt', algorithms: ['ES256'] });

test('discovery announces what the other tests use', () => {
  const metadata = config.serverMetadata();
  assert.equal(metadata.issuer, server.issuer);
  for (const grant of ['wechat_jscode', 'refresh_token', 'client_credentials']) {
    assert.ok(metadata.grant_types_supported.includes(grant), grant);
  }
  assert.ok(metadata.id_token_signing_alg_values_supported.includes('RS256'));
  for (const endpoint of ['token', 'userinfo', 'introspection', 'revocation']) {
    assert.ok(metadata[`${endpoint}_endpoint`].startsWith(`${server.issuer}/`), endpoint);
  }
});

test('the metadata of RFC 8414 is found and the same', async () => {
  const found = await client.discovery(new URL(server.issuer), miniProgram, undefined, client.None(), {
    algorithm: 'oauth2', execute: [client.allowInsecureRequests],
  });
  assert.deepEqual(found.serverMetadata().token_endpoint, config.serverMetadata().token_endpoint);
});

test('a js_code becomes an ID Token that jose verifies', async () => {
  const before = Math.floor(Date.now() / 1000);
  const tokens = await signIn(config, await server.login('alice'), { scope: 'openid profile', nonce: 'n-0S6_WzA2Mj' });
  assert.equal(tokens.token_type, 'bearer');
  assert.equal(tokens.scope, 'openid profile');
  assert.equal(tokens.expiresIn(), 900);

  const { payload, protectedHeader } = await verifyIDToken(tokens.id_token);
  assert.equal(protectedHeader.alg, 'ES256');
  assert.equal(payload.nonce, 'n-0S6_WzA2Mj');
  assert.deepEqual(payload.amr, ['wechat']);
  assert.ok(payload.auth_time >= before && payload.auth_time <= payload.iat);
  assert.equal(payload.exp - payload.iat, 3600);
  // OIDC Core §3.1.3.6
  const hash = createHash('sha256').update(tokens.access_token).digest();
  assert.equal(payload.at_hash, hash.subarray(0, 16).toString('base64url'));
  assert.deepEqual(tokens.claims(), payload);
});

test('a resource server verifies the access token with jose', async () => {
  const tokens = await signIn(config, await server.login('alice'));
  const { payload } = await verifyAccessToken(tokens.access_token);
  assert.equal(payload.sub, tokens.claims().sub);
  assert.equal(payload.client_id, miniProgram);
  assert.equal(payload.scope, 'openid');
  assert.equal(payload.sid, tokens.claims().sid);
  assert.equal(payload.exp - payload.iat, 900);
  assert.ok(payload.jti);
});

test('the same person keeps one sub, another has another', async () => {
  const sub = async (user) => (await signIn(config, await server.login(user))).claims().sub;
  const alice = await sub('alice');
  assert.equal(await sub('alice'), alice);
  assert.notEqual(await sub('bob'), alice);
});

test('a refresh answers new tokens for the same sign-in', async () => {
  const first = await signIn(config, await server.login('alice'), { scope: 'openid profile', nonce: 'once' });
  const second = await client.refreshTokenGrant(config, first.refresh_token);
  assert.notEqual(second.access_token, first.access_token);
  assert.notEqual(second.refresh_token, first.refresh_token);
  assert.equal(second.scope, 'openid profile');

  const { payload } = await verifyIDToken(second.id_token);
  for (const name of ['iss', 'sub', 'aud', 'auth_time', 'sid']) {
    assert.deepEqual(payload[name], first.claims()[name], name);
  }
  assert.equal(payload.nonce, undefined);
  assert.equal((await verifyAccessToken(second.access_token)).payload.sub, payload.sub);

  const narrowed = await client.refreshTokenGrant(config, second.refresh_token, { scope: 'openid' });
  assert.equal(narrowed.scope, 'openid');
});

test('parallel refreshes of one token all get the same successor', async () => {
  const { refresh_token: token } = await signIn(config, await server.login('alice'));
  const answers = await Promise.all(Array.from({ length: 20 }, () => client.refreshTokenGrant(config, token)));
  assert.equal(new Set(answers.map((answer) => answer.refresh_token)).size, 1);
  for (const answer of answers) await verifyAccessToken(answer.access_token);
  await client.refreshTokenGrant(config, answers[0].refresh_token);
});

test('a lost answer costs no sign-in: Idempotency-Key', async () => {
  const once = await discover(server.issuer, miniProgram, { edit: withHeaders({ 'idempotency-key': 'e2e-1' }) });
  const jsCode = await server.login('alice');
  const first = await signIn(once, jsCode);
  const again = await signIn(once, jsCode);
  assert.equal(again.refresh_token, first.refresh_token);
  assert.equal(again.claims().sid, first.claims().sid);
});

test('UserInfo tells of the expected sub', async () => {
  const tokens = await signIn(config, await server.login('alice'), { scope: 'openid profile' });
  const { sub } = tokens.claims();
  const info = await client.fetchUserInfo(config, tokens.access_token, sub);
  assert.equal(info.sub, sub);
  assert.equal(info.nickname, '微信用户');

  await assert.rejects(client.fetchUserInfo(config, tokens.access_token, 'somebody-else'), { code: 'OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED' });
  await assert.rejects(client.fetchUserInfo(config, tokens.id_token, sub), (err) => {
    assert.ok(err instanceof client.WWWAuthenticateChallengeError);
    assert.equal(err.status, 401);
    assert.equal(err.cause[0].parameters.error, 'invalid_token');
    return true;
  });
});

test('client credentials by client_secret_basic', async () => {
  const tokens = await client.clientCredentialsGrant(backendConfig, { scope: 'orders.read' });
  assert.equal(tokens.refresh_token, undefined);
  assert.equal(tokens.id_token, undefined);
  const { payload } = await verifyAccessToken(tokens.access_token);
  assert.equal(payload.sub, backend);
  assert.equal(payload.client_id, backend);
  assert.equal(payload.scope, 'orders.read');
  assert.equal(payload.sid, undefined);
});

test('introspection describes an active token', async () => {
  const tokens = await signIn(config, await server.login('alice'));
  const { payload } = await verifyAccessToken(tokens.access_token);
  const about = await client.tokenIntrospection(backendConfig, tokens.access_token);
  assert.equal(about.active, true);
  for (const name of ['iss', 'sub', 'aud', 'client_id', 'scope', 'iat', 'exp', 'jti', 'sid', 'auth_time']) {
    assert.deepEqual(about[name], payload[name], name);
  }
  for (const other of [tokens.id_token, tokens.refresh_token, 'garbage']) {
    assert.deepEqual(await client.tokenIntrospection(backendConfig, other), { active: false });
  }
});

test('revoking the refresh token ends the whole sign-in', async () => {
  const first = await signIn(config, await server.login('alice'));
  const second = await client.refreshTokenGrant(config, first.refresh_token);
  await client.tokenRevocation(config, second.refresh_token);
  for (const { access_token: token } of [first, second]) {
    assert.deepEqual(await client.tokenIntrospection(backendConfig, token), { active: false });
  }
  await assert.rejects(client.refreshTokenGrant(config, second.refresh_token), { error: 'invalid_grant' });
});

test('revoking an access token ends that one alone', async () => {
  const first = await signIn(config, await server.login('alice'));
  const second = await client.refreshTokenGrant(config, first.refresh_token);
  await client.tokenRevocation(config, first.access_token);
  assert.equal((await client.tokenIntrospection(backendConfig, first.access_token)).active, false);
  assert.equal((await client.tokenIntrospection(backendConfig, second.access_token)).active, true);
  await client.refreshTokenGrant(config, second.refresh_token);
});

test('what jose must refuse', async (t) => {
  const tokens = await signIn(config, await server.login('alice'));
  const { access_token: accessToken, id_token: idToken } = tokens;
  const expect = { issuer: server.issuer, audience, typ: 'at+jwt', algorithms: ['ES256'] };
  await jwtVerify(accessToken, jwks, expect); // the rows below differ from this in one thing each

  const [header, payload, signature] = accessToken.split('.');
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const decoded = JSON.parse(Buffer.from(payload, 'base64url'));
  const { kid } = decodeProtectedHeader(accessToken);
  const soon = new Date(Date.now() + 3600_000);

  for (const [name, token, changed, code] of [
    ['an ID Token as access token', idToken, { audience: miniProgram }, 'ERR_JWT_CLAIM_VALIDATION_FAILED'],
    ['an access token as ID Token', accessToken, { typ: 'JWT' }, 'ERR_JWT_CLAIM_VALIDATION_FAILED'],
    ['the audience of another API', accessToken, { audience: 'https://other.example' }, 'ERR_JWT_CLAIM_VALIDATION_FAILED'],
    ['another issuer', accessToken, { issuer: 'https://id.example.com' }, 'ERR_JWT_CLAIM_VALIDATION_FAILED'],
    ['an expired token', accessToken, { currentDate: soon }, 'ERR_JWT_EXPIRED'],
    ['an algorithm that is not expected', accessToken, { algorithms: ['RS256'] }, 'ERR_JOSE_ALG_NOT_ALLOWED'],
    ['a changed payload', [header, encode({ ...decoded, sub: 'mallory' }), signature].join('.'), {}, 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED'],
    ['a changed signature', [header, payload, signature.replace(/^./, (c) => (c === 'A' ? 'B' : 'A'))].join('.'), {}, 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED'],
    ['a refresh token', tokens.refresh_token, {}, 'ERR_JWS_INVALID'],
    ['alg none', `${encode({ alg: 'none', typ: 'at+jwt', kid })}.${payload}.`, {}, 'ERR_JOSE_ALG_NOT_ALLOWED'],
    ['an unknown key', [encode({ alg: 'ES256', typ: 'at+jwt', kid: 'unknown' }), payload, signature].join('.'), {}, 'ERR_JWKS_NO_MATCHING_KEY'],
  ]) {
    await t.test(name, () => assert.rejects(jwtVerify(token, jwks, { ...expect, ...changed }), { code }));
  }
});

test('WeChat identifies nobody by anything the request says', async () => {
  const one = await signIn(config, await server.login('alice'), { appid: 'wxffffffffffffffff', openid: 'oX', sub: 'mallory' });
  const two = await signIn(config, await server.login('alice', appID));
  assert.equal(one.claims().sub, two.claims().sub);
});

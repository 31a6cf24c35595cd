// The ways a client may authenticate, and ID Tokens for clients that name no
// algorithm, with a configuration of their own and `wxidp serve`.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, test } from 'node:test';
import { createRemoteJWKSet, exportJWK, generateKeyPair, jwtVerify } from 'jose';
import * as client from 'openid-client';
import { discover, signIn } from '../lib/oidc.js';
import { appID, audience, startServe } from '../lib/server.js';

const secret = () => randomBytes(32).toString('base64');
const postSecret = secret();
const [oldSecret, newSecret] = [secret(), secret()];

async function assertionKey(alg, kid) {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  const jwk = { ...(await exportJWK(publicKey)), kid, use: 'sig', alg };
  return { jwks: JSON.stringify({ keys: [jwk] }), key: privateKey, kid };
}
const rs256 = await assertionKey('RS256', 'rsa-1');
const es256 = await assertionKey('ES256', 'ec-1');

const server = await startServe({
  config: `clients:
  - client_id: plain-mini # names no id_token_signed_response_alg
    type: public
    wechat_appid: ${appID}
    grant_types: [wechat_jscode, refresh_token]
    scopes: [openid, wechat]
    default_scopes: [openid]
    audience: [${audience}]
  - client_id: two-apis
    type: public
    wechat_appid: ${appID}
    grant_types: [wechat_jscode]
    scopes: [orders.read]
    default_scopes: [orders.read]
    audience: [${audience}, https://stock.shop.example]
  - client_id: by-post
    type: confidential
    client_secret_file: secrets/by-post
    token_endpoint_auth_method: client_secret_post
    grant_types: [client_credentials]
    scopes: [orders.read]
    default_scopes: [orders.read]
    audience: [${audience}]
    introspection: true
  - client_id: by-basic.odd~name
    type: confidential
    client_secret_file: secrets/by-post
    grant_types: [client_credentials]
    scopes: [orders.read]
    default_scopes: [orders.read]
  - client_id: two-secrets
    type: confidential
    client_secrets: ["${oldSecret}", "${newSecret}"]
    grant_types: [client_credentials]
    scopes: [orders.read]
    default_scopes: [orders.read]
  - client_id: by-rs256
    type: confidential
    token_endpoint_auth_method: private_key_jwt
    jwks_file: rs256.jwks.json
    grant_types: [client_credentials]
    scopes: [orders.read]
    default_scopes: [orders.read]
    audience: [${audience}]
    introspection: true
  - client_id: by-es256
    type: confidential
    token_endpoint_auth_method: private_key_jwt
    token_endpoint_auth_signing_alg: ES256
    jwks_file: es256.jwks.json
    wechat_appid: ${appID}
    grant_types: [wechat_jscode, refresh_token]
    scopes: [openid]
    default_scopes: [openid]
    audience: [${audience}]
`,
  files: { 'secrets/by-post': `${postSecret}\n`, 'rs256.jwks.json': rs256.jwks, 'es256.jwks.json': es256.jwks },
});
after(() => server.stop());

const jwks = createRemoteJWKSet(new URL(`${server.issuer}/.well-known/jwks.json`));
const verifyAccessToken = (token) =>
  jwtVerify(token, jwks, { issuer: server.issuer, audience, typ: 'at+jwt', algorithms: ['ES256'] });

test('RS256 where the client names no algorithm', async () => {
  const config = await discover(server.issuer, 'plain-mini', { metadata: { id_token_signed_response_alg: 'RS256' } });
  const tokens = await signIn(config, await server.login('alice'));
  const { payload, protectedHeader } = await jwtVerify(tokens.id_token, jwks, {
    issuer: server.issuer, audience: 'plain-mini', typ: 'JWT', algorithms: ['RS256'],
  });
  assert.equal(protectedHeader.alg, 'RS256');
  assert.equal((await verifyAccessToken(tokens.access_token)).payload.sub, payload.sub);
  await client.refreshTokenGrant(config, tokens.refresh_token);
});

test('the WeChat ids come by the scope wechat alone', async () => {
  const config = await discover(server.issuer, 'plain-mini');
  const info = async (scope) => {
    const tokens = await signIn(config, await server.login('alice'), { scope });
    return client.fetchUserInfo(config, tokens.access_token, tokens.claims().sub);
  };
  assert.deepEqual(Object.keys(await info('openid')), ['sub']);
  const known = await info('openid wechat');
  assert.equal(known.wechat_appid, appID);
  assert.ok(known.wechat_openid);
  assert.notEqual(known.wechat_openid, known.sub);
});

test('several audiences, or some of them by audience or resource (RFC 8707)', async () => {
  const config = await discover(server.issuer, 'two-apis');
  const all = await signIn(config, await server.login('alice'));
  const both = [audience, 'https://stock.shop.example'];
  assert.deepEqual((await verifyAccessToken(all.access_token)).payload.aud, both);
  for (const parameters of [{ audience: both.join(' ') }, both.map((value) => ['resource', value])]) {
    const form = new URLSearchParams(parameters);
    form.set('js_code', await server.login('alice'));
    const tokens = await client.genericGrantRequest(config, 'wechat_jscode', form);
    assert.deepEqual((await verifyAccessToken(tokens.access_token)).payload.aud, both);
  }
  assert.equal(all.id_token, undefined); // openid was not asked for
  assert.equal(all.refresh_token, undefined); // nor is the grant this client's
  const one = await signIn(config, await server.login('alice'), { resource: 'https://stock.shop.example' });
  await assert.rejects(verifyAccessToken(one.access_token), { claim: 'aud' });
});

test('client_secret_post', async () => {
  const config = await discover(server.issuer, 'by-post', { auth: client.ClientSecretPost(postSecret) });
  const tokens = await client.clientCredentialsGrant(config);
  assert.equal((await verifyAccessToken(tokens.access_token)).payload.sub, 'by-post');
  assert.equal((await client.tokenIntrospection(config, tokens.access_token)).active, true);
  await client.tokenRevocation(config, tokens.access_token);
  assert.equal((await client.tokenIntrospection(config, tokens.access_token)).active, false);
});

test('the configured method is the only one', async () => {
  const config = await discover(server.issuer, 'by-post', { auth: client.ClientSecretBasic(postSecret) });
  await assert.rejects(client.clientCredentialsGrant(config), { status: 401 });
});

test('client_secret_basic with characters that Basic must encode', async () => {
  const config = await discover(server.issuer, 'by-basic.odd~name', { auth: client.ClientSecretBasic(postSecret) });
  const tokens = await client.clientCredentialsGrant(config);
  assert.ok(tokens.access_token);
});

test('two secrets side by side, as in a rotation', async () => {
  for (const value of [oldSecret, newSecret]) {
    const config = await discover(server.issuer, 'two-secrets', { auth: client.ClientSecretBasic(value) });
    assert.ok((await client.clientCredentialsGrant(config)).access_token);
  }
});

test('private_key_jwt with RS256', async () => {
  const config = await discover(server.issuer, 'by-rs256', { auth: client.PrivateKeyJwt(rs256) });
  const tokens = await client.clientCredentialsGrant(config);
  assert.equal((await verifyAccessToken(tokens.access_token)).payload.sub, 'by-rs256');
  assert.equal((await client.tokenIntrospection(config, tokens.access_token)).active, true);
  await client.tokenRevocation(config, tokens.access_token);
  assert.equal((await client.tokenIntrospection(config, tokens.access_token)).active, false);
});

test('private_key_jwt with ES256, signing a user in', async () => {
  const config = await discover(server.issuer, 'by-es256', { auth: client.PrivateKeyJwt(es256) });
  const tokens = await signIn(config, await server.login('alice'));
  assert.equal(tokens.claims().aud, 'by-es256');
  assert.ok((await client.refreshTokenGrant(config, tokens.refresh_token)).refresh_token);
});

test('private_key_jwt with the key of another client', async () => {
  const config = await discover(server.issuer, 'by-es256', { auth: client.PrivateKeyJwt({ key: rs256.key, kid: rs256.kid }) });
  await assert.rejects(signIn(config, 'js-code'), { status: 401, error: 'invalid_client' });
});

test('a client assertion works once', async () => {
  let assertion;
  const remember = { [client.modifyAssertion]: (_, payload) => { assertion ??= payload.jti; payload.jti = assertion; } };
  const config = await discover(server.issuer, 'by-rs256', { auth: client.PrivateKeyJwt(rs256, remember) });
  await client.clientCredentialsGrant(config);
  await assert.rejects(client.clientCredentialsGrant(config), { status: 401, error: 'invalid_client' });
});

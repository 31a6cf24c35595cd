// Browser sign-in with openid-client, by its documented calls alone.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createRemoteJWKSet, decodeJwt, exportJWK, generateKeyPair, jwtVerify } from 'jose';
import * as client from 'openid-client';
import { discover, refusal } from '../lib/oidc.js';
import { newPerson } from '../lib/person.js';
import { startServe } from '../lib/server.js';

const redirectURI = 'http://127.0.0.1:3000/callback'; // nobody listens there
const afterLogout = 'http://127.0.0.1:3000/';
const secret = randomBytes(32).toString('base64');
const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });

/** What shop-web was told through the back channel. */
const told = [];
const listener = createServer(async (request, response) => {
  const body = [];
  for await (const chunk of request) body.push(chunk);
  told.push({ method: request.method, url: request.url, type: request.headers['content-type'], form: new URLSearchParams(Buffer.concat(body).toString()) });
  response.end();
}).listen(0, '127.0.0.1');
await once(listener, 'listening');
after(() => { listener.closeAllConnections(); listener.close(); });

const browserClient = (id, lines) => `  - client_id: ${id}
    grant_types: [authorization_code, refresh_token]
    redirect_uris: ["${redirectURI}"]
    post_logout_redirect_uris: ["${afterLogout}"]
    scopes: [openid, profile, offline_access]
${lines.map((line) => `    ${line}\n`).join('')}`;

const server = await startServe({
  config: `tokens: { pairwise_salt: ${randomBytes(32).toString('hex')} }
backchannel_logout: { allowed_networks: [127.0.0.1/32] }
clients:
${browserClient('shop-web', [
    'type: confidential', 'client_secret_file: secrets/web',
    `backchannel_logout_uri: http://127.0.0.1:${listener.address().port}/backchannel-logout`,
  ])}
${browserClient('shop-bound', [
    'type: confidential', 'client_secret_file: secrets/web', 'consent: skip', 'id_token_signed_response_alg: ES256',
    'require_pushed_authorization_requests: true', 'dpop_bound_access_tokens: true',
  ])}
${browserClient('shop-partner', [
    'type: confidential', 'token_endpoint_auth_method: private_key_jwt', 'token_endpoint_auth_signing_alg: ES256',
    'jwks_file: partner.jwks.json', 'subject_type: pairwise', 'sector_identifier: partner.example',
  ])}
${browserClient('shop-desktop', ['type: public', 'id_token_signed_response_alg: ES256'])}`,
  files: { 'secrets/web': `${secret}\n`, 'partner.jwks.json': JSON.stringify({ keys: [{ ...await exportJWK(publicKey), kid: 'k1', use: 'sig' }] }) },
});
after(() => server.stop());

const web = await discover(server.issuer, 'shop-web', { auth: client.ClientSecretBasic(secret) });
const bound = await discover(server.issuer, 'shop-bound', {
  auth: client.ClientSecretBasic(secret), metadata: { id_token_signed_response_alg: 'ES256' },
});
const partner = await discover(server.issuer, 'shop-partner', { auth: client.PrivateKeyJwt({ key: privateKey, kid: 'k1' }) });
const desktop = await discover(server.issuer, 'shop-desktop', { metadata: { id_token_signed_response_alg: 'ES256' } });

/** The parameters of an authorization request, and what its answer is checked with. */
async function newRequest(parameters = {}) {
  const checks = {
    pkceCodeVerifier: client.randomPKCECodeVerifier(), expectedState: client.randomState(), expectedNonce: client.randomNonce(),
    idTokenExpected: true,
  };
  return {
    checks,
    parameters: {
      redirect_uri: redirectURI, scope: 'openid profile', state: checks.expectedState, nonce: checks.expectedNonce,
      code_challenge: await client.calculatePKCECodeChallenge(checks.pkceCodeVerifier), code_challenge_method: 'S256', ...parameters,
    },
  };
}

/** Signs a person in; returns the tokens. */
async function signIn(person, config, parameters) {
  const request = await newRequest(parameters);
  const answer = await person.authorize(client.buildAuthorizationUrl(config, request.parameters), redirectURI);
  return client.authorizationCodeGrant(config, answer, request.checks);
}

/** Returns the error that an authorization request is answered with. */
async function denial(person, config, parameters, options) {
  const request = await newRequest(parameters);
  const answer = await person.authorize(client.buildAuthorizationUrl(config, request.parameters), redirectURI, options);
  try {
    await client.authorizationCodeGrant(config, answer, request.checks);
  } catch (err) {
    if (err instanceof client.AuthorizationResponseError) return err.error;
    throw err;
  }
  throw new Error('the request was granted');
}

test('sign-in with PKCE, state and nonce; UserInfo; refresh; logout', async () => {
  const alice = await newPerson(server, 'alice');
  const tokens = await signIn(alice, web);
  const { sub, sid, amr, auth_time: authTime, aud } = tokens.claims();
  assert.equal(aud, 'shop-web');
  assert.ok(sid);
  assert.deepEqual(amr, ['pwd']);
  assert.ok(Math.abs(authTime - Date.now() / 1000) < 60);
  assert.equal((await client.fetchUserInfo(web, tokens.access_token, sub)).sub, sub);

  const second = await client.refreshTokenGrant(web, tokens.refresh_token);
  assert.notEqual(second.refresh_token, tokens.refresh_token);
  assert.equal(second.claims().sid, sid);
  assert.equal((await client.refreshTokenGrant(web, tokens.refresh_token)).refresh_token, second.refresh_token); // a lost answer
  const third = await client.refreshTokenGrant(web, second.refresh_token);

  // The browser is signed in, and alice has agreed: nothing is asked again.
  assert.equal((await signIn(alice, web, { prompt: 'none', id_token_hint: third.id_token })).claims().sub, sub);

  const logout = client.buildEndSessionUrl(web, {
    id_token_hint: third.id_token, post_logout_redirect_uri: afterLogout, state: 'a b&c',
  });
  const back = new URL((await alice.visit(logout, afterLogout)).url);
  assert.deepEqual([...back.searchParams], [['state', 'a b&c']]);
  assert.equal((await refusal(() => client.refreshTokenGrant(web, third.refresh_token))).error, 'invalid_grant');
  assert.equal(await denial(alice, web, { prompt: 'none' }), 'login_required');
});

/** Waits until shop-web is told of the end of a sign-in. */
async function heardOf(sid) {
  const ofIt = ({ form }) => decodeJwt(form.get('logout_token')).sid === sid;
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; await sleep(20)) {
    if (told.some(ofIt)) return told.filter(ofIt);
  }
  throw new Error(`shop-web was not told of ${sid}`);
}

test('logged out through the back channel', async () => {
  const judy = await newPerson(server, 'judy');
  const tokens = await signIn(judy, web);
  const { sub, sid } = tokens.claims();
  const logout = client.buildEndSessionUrl(web, { id_token_hint: tokens.id_token, post_logout_redirect_uri: afterLogout });
  assert.equal((await judy.visit(logout, afterLogout)).url, afterLogout);

  const [{ method, url, type, form }, ...more] = await heardOf(sid);
  assert.deepEqual([method, url, type, [...form.keys()], more.length], ['POST', '/backchannel-logout', 'application/x-www-form-urlencoded', ['logout_token'], 0]);
  const { issuer, jwks_uri: jwks } = web.serverMetadata();
  const { payload, protectedHeader } = await jwtVerify(form.get('logout_token'), createRemoteJWKSet(new URL(jwks)), {
    issuer, audience: 'shop-web', typ: 'logout+jwt', algorithms: ['RS256'], requiredClaims: ['iat', 'exp', 'jti'], maxTokenAge: '1m',
  });
  assert.equal(protectedHeader.typ, 'logout+jwt');
  assert.deepEqual([payload.iss, payload.aud, payload.sid, payload.sub], [server.issuer, 'shop-web', sid, sub]);
  assert.deepEqual(payload.events, { 'http://schemas.openid.net/event/backchannel-logout': {} });
  assert.ok(!('nonce' in payload));
});

test('offline_access outlives the logout', async () => {
  const bob = await newPerson(server, 'bob');
  const tokens = await signIn(bob, web, { scope: 'openid offline_access', prompt: 'consent' });
  const page = await bob.visit(client.buildEndSessionUrl(web, { post_logout_redirect_uri: afterLogout }));
  assert.equal((await bob.submit(page, 'sign-out', {}, afterLogout)).url, afterLogout); // without a hint it asks
  const refreshed = await client.refreshTokenGrant(web, tokens.refresh_token);
  await client.tokenRevocation(web, refreshed.refresh_token);
  assert.equal((await refusal(() => client.refreshTokenGrant(web, refreshed.refresh_token))).error, 'invalid_grant');
});

test('max_age and prompt=login are answered with a new sign-in', async () => {
  const carol = await newPerson(server, 'carol');
  const first = (await signIn(carol, web)).claims();
  for (const parameters of [{ max_age: 0 }, { prompt: 'login' }]) {
    const request = await newRequest(parameters);
    const answer = await carol.authorize(client.buildAuthorizationUrl(web, request.parameters), redirectURI);
    const tokens = await client.authorizationCodeGrant(web, answer, { ...request.checks, maxAge: 5 });
    assert.ok(tokens.claims().auth_time >= first.auth_time);
    assert.notEqual(tokens.claims().sid, first.sid);
  }
});

test('pushed requests, and tokens bound to a key', async () => {
  const dora = await newPerson(server, 'dora');
  const DPoP = client.getDPoPHandle(bound, await client.randomDPoPKeyPair('ES256'));
  for (const parameters of [{}, { dpop_jkt: await DPoP.calculateThumbprint() }]) {
    const request = await newRequest(parameters);
    const url = await client.buildAuthorizationUrlWithPAR(bound, request.parameters, { DPoP });
    assert.deepEqual([...url.searchParams.keys()].sort(), ['client_id', 'request_uri']);
    const answer = await dora.authorize(url, redirectURI);
    const tokens = await client.authorizationCodeGrant(bound, answer, request.checks, undefined, { DPoP });
    assert.equal(tokens.token_type, 'dpop');
    const { sub } = tokens.claims();
    assert.equal((await client.fetchUserInfo(bound, tokens.access_token, sub, { DPoP })).sub, sub);
    const second = await client.refreshTokenGrant(bound, tokens.refresh_token, undefined, { DPoP });
    assert.equal((await client.refreshTokenGrant(bound, tokens.refresh_token, undefined, { DPoP })).refresh_token, second.refresh_token);
    assert.equal((await refusal(() => client.refreshTokenGrant(bound, second.refresh_token))).error, 'invalid_dpop_proof');
    await client.refreshTokenGrant(bound, second.refresh_token, undefined, { DPoP });
  }
  await assert.rejects(signIn(dora, bound)); // this client must push
});

test('a public client with DPoP, and a code that another key cannot redeem', async () => {
  const erin = await newPerson(server, 'erin');
  const handle = async () => client.getDPoPHandle(desktop, await client.randomDPoPKeyPair());
  const DPoP = await handle();
  for (const options of [{ DPoP }, { DPoP: await handle() }]) {
    const request = await newRequest({ dpop_jkt: await DPoP.calculateThumbprint() });
    const answer = await erin.authorize(client.buildAuthorizationUrl(desktop, request.parameters), redirectURI);
    const redeem = () => client.authorizationCodeGrant(desktop, answer, request.checks, undefined, options);
    if (options.DPoP === DPoP) assert.equal((await redeem()).token_type, 'dpop');
    else assert.equal((await refusal(redeem)).error, 'invalid_grant');
  }
});

test('form_post', async () => {
  const frank = await newPerson(server, 'frank');
  const request = await newRequest({ response_mode: 'form_post' });
  const answer = await frank.authorize(client.buildAuthorizationUrl(web, request.parameters), redirectURI);
  assert.equal(answer.method, 'POST');
  assert.ok((await client.authorizationCodeGrant(web, answer, request.checks)).refresh_token);
});

test('private_key_jwt for pushing, redeeming and refreshing, and a sub of its own', async () => {
  const grace = await newPerson(server, 'grace');
  const request = await newRequest();
  const answer = await grace.authorize(await client.buildAuthorizationUrlWithPAR(partner, request.parameters), redirectURI);
  const tokens = await client.authorizationCodeGrant(partner, answer, request.checks);
  const { sub } = tokens.claims();
  assert.equal((await client.fetchUserInfo(partner, tokens.access_token, sub)).sub, sub);
  const refreshed = await client.refreshTokenGrant(partner, tokens.refresh_token);
  assert.equal(refreshed.claims().sub, sub);
  assert.notEqual((await signIn(grace, web)).claims().sub, sub);

  const logout = client.buildEndSessionUrl(partner, { id_token_hint: refreshed.id_token, post_logout_redirect_uri: afterLogout });
  assert.equal((await grace.visit(logout, afterLogout)).url, afterLogout);
});

test('who says no', async () => {
  const heidi = await newPerson(server, 'heidi');
  assert.equal(await denial(heidi, web, {}, { consent: 'deny' }), 'access_denied');
  assert.equal(await denial(heidi, web, { prompt: 'none' }), 'consent_required');
  assert.equal(await denial(heidi, web, { response_mode: 'form_post' }, { consent: 'deny' }), 'access_denied');
});

test('an answer of another issuer, of none, or to another request', async () => {
  const ivan = await newPerson(server, 'ivan');
  const request = await newRequest();
  const answer = await ivan.authorize(client.buildAuthorizationUrl(web, request.parameters), redirectURI);
  const spoiled = (edit) => {
    const url = new URL(answer.url);
    edit(url.searchParams);
    return client.authorizationCodeGrant(web, url, request.checks);
  };
  const about = (name) => (err) => err instanceof client.ClientError && err.cause.message.includes(`"${name}"`);
  await assert.rejects(spoiled((params) => params.set('iss', 'https://evil.example')), about('iss'));
  await assert.rejects(spoiled((params) => params.delete('iss')), about('iss'));
  await assert.rejects(spoiled((params) => params.set('state', 'other')), about('state'));
  await client.authorizationCodeGrant(web, answer, request.checks); // none of these came to wxidp
});

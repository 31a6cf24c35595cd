// A web application of express-openid-connect, with its session in a store and
// back-channel logout, as its documentation sets it up.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import express from 'express';
import openid from 'express-openid-connect';
import { exportJWK, generateKeyPair } from 'jose';
import * as client from 'openid-client';
import { discover } from '../lib/oidc.js';
import { newPerson, Person } from '../lib/person.js';
import { startServe } from '../lib/server.js';

const secret = randomBytes(32).toString('base64');
const { publicKey, privateKey } = await generateKeyPair('RS256', { extractable: true });
const otherURI = 'http://127.0.0.1:3000/'; // nobody listens there

/** Listens for an application; what it does is added later. */
async function listen() {
  const app = express();
  const listener = createServer(app).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  after(() => { listener.closeAllConnections(); listener.close(); });
  return { app, baseURL: `http://127.0.0.1:${listener.address().port}` };
}
const shop = await listen();
const partner = await listen();

const application = (id, { baseURL }, lines) => `  - client_id: ${id}
    type: confidential
    grant_types: [authorization_code, refresh_token]
    redirect_uris: ["${baseURL}/callback"]
    post_logout_redirect_uris: ["${baseURL}"]
    backchannel_logout_uri: ${baseURL}/backchannel-logout
    scopes: [openid, profile, offline_access]
${lines.map((line) => `    ${line}\n`).join('')}`;

const server = await startServe({
  config: `backchannel_logout: { allowed_networks: [127.0.0.1/32] }
clients:
${application('shop-web', shop, ['client_secret_file: secrets/web', 'consent: skip'])}
${application('partner-web', partner, [
    'token_endpoint_auth_method: private_key_jwt', 'jwks_file: partner.jwks.json', 'require_pushed_authorization_requests: true',
  ])}
  - client_id: stock-web
    type: confidential
    client_secret_file: secrets/web
    grant_types: [authorization_code, refresh_token]
    redirect_uris: ["${otherURI}"]
    post_logout_redirect_uris: ["${otherURI}"]
    scopes: [openid]
`,
  files: { 'secrets/web': `${secret}\n`, 'partner.jwks.json': JSON.stringify({ keys: [{ ...await exportJWK(publicKey), kid: 'k1', use: 'sig' }] }) },
});
after(() => server.stop());

/** A store of sessions, with the methods of express-session's. */
class MemoryStore extends openid.auth.Store {
  #entries = new Map();

  get(id, done) { done(null, this.#entries.get(id)); }

  set(id, entry, done) { this.#entries.set(id, entry); done(null); }

  destroy(id, done) { this.#entries.delete(id); done(null); }
}

/** Makes an application whose scope is the library's own: openid profile email. */
function build({ app, baseURL }, options) {
  app.use(openid.auth({
    issuerBaseURL: server.issuer,
    baseURL,
    secret: randomBytes(32).toString('hex'),
    authRequired: false,
    idpLogout: true,
    authorizationParams: { response_type: 'code' },
    session: { store: new MemoryStore() },
    backchannelLogout: true,
    ...options,
  }));
  app.get('/', (req, res) => res.json({ signedIn: req.oidc.isAuthenticated(), user: req.oidc.user }));
  app.get('/profile', openid.requiresAuth(), async (req, res) => res.json(await req.oidc.fetchUserInfo()));
  app.get('/offline', (req, res) => res.oidc.login({
    returnTo: '/', authorizationParams: { response_type: 'code', scope: 'openid offline_access' },
  }));
  app.get('/refresh', openid.requiresAuth(), async (req, res) => {
    const before = req.oidc.refreshToken;
    const { access_token: token } = await req.oidc.accessToken.refresh();
    res.json({ token, rotated: before !== req.oidc.refreshToken });
  });
}
build(shop, { clientID: 'shop-web', clientSecret: secret });
build(partner, {
  clientID: 'partner-web', clientAssertionSigningKey: privateKey, pushedAuthorizationRequests: true,
});

/** Returns what the application says at a path to a person who signs in where that is asked. */
async function at(person, path, { baseURL } = shop) {
  const page = await person.go(baseURL + path);
  assert.equal(page.status, 200, `${page.url}: ${page.text}`);
  return JSON.parse(page.text);
}

/** Waits until an application has no session of the person any more. */
async function signedOut(person, application = shop) {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; await sleep(20)) {
    if (!(await at(person, '/', application)).signedIn) return;
  }
  throw new Error(`still signed in; wxidp wrote:\n${server.output()}`);
}

for (const [title, application] of Object.entries({ 'with a secret': shop, 'with a key and pushed requests': partner })) {
  test(`sign-in, UserInfo, refresh, ${title}; an account that is disabled`, async () => {
    const alice = await newPerson(server, `alice-${title.length}`);
    assert.equal((await at(alice, '/', application)).signedIn, false);
    const { signedIn, user } = await at(alice, '/login', application);
    assert.ok(signedIn);
    assert.ok(user.sid);
    assert.equal((await at(alice, '/profile', application)).sub, user.sub);
    for (let i = 0; i < 2; i++) {
      const { token, rotated } = await at(alice, '/refresh', application);
      assert.ok(token && rotated);
    }
    assert.equal((await at(alice, '/profile', application)).sub, user.sub);
    await server.command(['users', 'disable', `username:${alice.username}`]);
    await signedOut(alice, application);
  });
}

for (const path of ['/login', '/offline']) {
  test(`the sign-out of the account page ends the session in the application (${path})`, async () => {
    const bob = await newPerson(server, `bob${path.slice(1)}`);
    const carol = await newPerson(server, `carol${path.slice(1)}`);
    for (const person of [bob, carol]) assert.ok((await at(person, path)).signedIn);
    const page = await bob.submit(await bob.visit(`${server.issuer}/account`), 'sign-out');
    assert.equal(page.status, 200);
    await signedOut(bob);
    assert.ok((await at(carol, '/')).signedIn);
    assert.ok((await at(bob, '/login')).signedIn); // with the password again
  });
}

test('the logout of another client in the same browser does, too', async () => {
  const dora = await newPerson(server, 'dora');
  assert.ok((await at(dora, '/login')).signedIn);
  const config = await discover(server.issuer, 'stock-web', { auth: client.ClientSecretBasic(secret) });
  const pkceCodeVerifier = client.randomPKCECodeVerifier();
  const answer = await dora.authorize(client.buildAuthorizationUrl(config, {
    redirect_uri: otherURI, scope: 'openid',
    code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier), code_challenge_method: 'S256',
  }), otherURI);
  const tokens = await client.authorizationCodeGrant(config, answer, { pkceCodeVerifier });
  assert.ok((await at(dora, '/')).signedIn);
  const logout = client.buildEndSessionUrl(config, { id_token_hint: tokens.id_token, post_logout_redirect_uri: otherURI });
  assert.equal((await dora.visit(logout, otherURI)).url, otherURI);
  await signedOut(dora);
});

test('the application\'s own logout ends the sign-in at wxidp and comes back', async () => {
  const erin = await newPerson(server, 'erin');
  assert.ok((await at(erin, '/login')).signedIn);
  const page = await erin.visit(`${shop.baseURL}/logout`);
  assert.equal(page.url, `${shop.baseURL}/`);
  assert.equal(JSON.parse(page.text).signedIn, false);
  assert.match((await erin.visit(`${shop.baseURL}/login`)).text, /id="password"/);
});

test('"sign out everywhere" reaches the sessions of other browsers', async () => {
  const frank = await newPerson(server, 'frank');
  const elsewhere = new Person('frank');
  for (const person of [frank, elsewhere]) assert.ok((await at(person, '/login')).signedIn);
  await frank.submit(await frank.visit(`${server.issuer}/account`), 'sign-out-everywhere');
  for (const person of [frank, elsewhere]) await signedOut(person);
});

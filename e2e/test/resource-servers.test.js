// The example resource servers: one table of tokens, and each of them answers
// the same.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createRemoteJWKSet, decodeJwt, decodeProtectedHeader, exportSPKI, generateKeyPair, importJWK, SignJWT } from 'jose';
import * as client from 'openid-client';
import { confused, Forger, unsigned } from '../lib/forger.js';
import { discover, signIn } from '../lib/oidc.js';
import { Example, kinds, Unavailable } from '../lib/resource-server.js';
import { appID, miniProgram, startServe } from '../lib/server.js';

const audience = 'orders'; // is a client too, whose ID Tokens have this aud
const betweenFetches = 5_000; // ms; what the examples wait before they look for an unknown key again
const clockSkew = 5_000; // ms; what they allow

const publicClient = (id, more) => `  - client_id: ${id}
    type: public
    wechat_appid: ${appID}
    grant_types: [wechat_jscode, refresh_token]
    id_token_signed_response_alg: ES256
    scopes: [openid, orders.read]
    default_scopes: [openid, orders.read]
${more.map((line) => `    ${line}\n`).join('')}`;

const config = `tokens: { access_token_lifetime: 10m }
keys: { publish_ahead: 2s, rotate_every: 720h }
clients:
${publicClient(miniProgram, [`audience: [${audience}]`])}
${publicClient(audience, [`audience: [${audience}]`])}
${publicClient('other', ['audience: [billing]'])}
${publicClient('short', [`audience: [${audience}]`, 'access_token_lifetime: 1s'])}
`;

process.setMaxListeners(30); // every child process has one

const server = await startServe({ config });
after(() => server.stop());
const foreign = await startServe({ config });
after(() => foreign.stop());
const forger = await Forger.start();
after(() => forger.stop());

/** Signs alice in by a client. */
async function tokensOf(clientID, { at = server, scope, DPoP } = {}) {
  const configuration = await discover(at.issuer, clientID);
  if (!DPoP) return signIn(configuration, await at.login('alice'), { ...(scope && { scope }) });
  const handle = client.getDPoPHandle(configuration, DPoP);
  return client.genericGrantRequest(configuration, 'wechat_jscode', { js_code: await at.login('alice') }, { DPoP: handle });
}

const examples = [];
after(async () => {
  for (const example of examples) await example.stop();
});

for (const kind of kinds) {
  test(`${kind.name}: builds and starts`, { timeout: 900_000 }, async (t) => {
    const begin = performance.now();
    let example;
    try {
      example = await Example.build(kind);
    } catch (err) {
      if (!(err instanceof Unavailable) || process.env.CI === 'true') throw err;
      console.log(`SKIPPED: the resource server in ${kind.name} did not run: ${err.message}`);
      t.skip(err.message);
      return;
    }
    const built = performance.now();
    examples.push(example);
    example.get = await example.start(server.issuer, audience);
    example.getForged = await example.start(forger.issuer(kind.name), audience);
    const seconds = (from, to) => ((to - from) / 1000).toFixed(1);
    t.diagnostic(`built in ${seconds(begin, built)} s, started twice in ${seconds(built, performance.now())} s`);
  });
}

/** An answer in one line: the status, and what the challenge says. */
async function verdict(response) {
  await response.body?.cancel();
  const challenge = response.headers.get('www-authenticate');
  if (!challenge) return `${response.status}`;
  const [, scheme, rest] = /^(\w+) (.*)$/.exec(challenge);
  const { realm, error, scope, ...more } = Object.fromEntries([...rest.matchAll(/(\w+)="([^"]*)"/g)].map(([, name, value]) => [name, value]));
  if (scheme !== 'Bearer' || realm !== 'orders' || Object.keys(more).length > 0) return `${response.status} ${challenge}`;
  return [response.status, error, scope].filter(Boolean).join(' ');
}

/** Asserts that all examples answer alike; ask sends a request to one and want may depend on it. */
async function all(ask, want) {
  const got = {};
  const wanted = {};
  for (const example of examples) {
    got[example.name] = await verdict(await ask(example));
    wanted[example.name] = typeof want === 'function' ? want(example) : want;
  }
  assert.deepEqual(got, wanted);
}

const invalid = '401 invalid_token';
const insufficient = '403 insufficient_scope orders.read';

test('an issuer that is out of order is not the fault of a token', async (t) => {
  t.after(async () => {
    forger.up = true;
    await sleep(betweenFetches + 500);
  });
  forger.up = false;
  const often = {};
  for (const example of examples) {
    const token = await forger.sign(forger.parts(example.name, audience));
    for (let i = 0; i < 20; i++) {
      const response = await example.getForged('/me', token);
      assert.equal(response.headers.get('retry-after'), '5', example.name);
      assert.equal(await verdict(response), '503', example.name);
    }
    assert.equal(await verdict(await example.getForged('/me')), '401', example.name);
    const fetches = forger.fetches.get(example.name);
    if (fetches > 4) often[example.name] = fetches; // two in a window, and two of them
  }
  assert.deepEqual(often, {});
});

test('tokens of wxidp', async (t) => {
  const good = await tokensOf(miniProgram);
  const short = await tokensOf('short');
  const access = good.access_token;
  const header = decodeProtectedHeader(access);
  const claims = decodeJwt(access);
  const keys = createRemoteJWKSet(new URL(`${server.issuer}/.well-known/jwks.json`));
  await keys(header, {});
  const pem = await exportSPKI(await importJWK(keys.jwks().keys.find(({ kid }) => kid === header.kid), 'ES256', { extractable: true }));

  await t.test('a good one', async () => {
    for (const example of examples) {
      const orders = await example.get('/orders', access);
      assert.equal(orders.status, 200, example.name);
      assert.deepEqual(await orders.json(), { sub: claims.sub, orders: [{ id: '1001', item: 'tea' }] }, example.name);
      const me = await example.get('/me', access);
      assert.deepEqual(await me.json(), { sub: claims.sub, client_id: miniProgram }, example.name);
    }
    await all(({ get }) => get('/orders', undefined, { authorization: `bearer ${access}` }), '200');
    await all(({ get }) => get('/me', short.access_token), '200'); // until it has expired
  });

  await t.test('none', () => all(({ get }) => get('/orders'), '401'));
  await t.test('in the query', () => all(({ get }) => get(`/orders?access_token=${access}`), '401'));
  await t.test('by another scheme', () => all(({ get }) => get('/orders', undefined, { authorization: `Basic ${access}` }), '401'));
  await t.test('without the scope', async () => {
    const narrow = await tokensOf(miniProgram, { scope: 'openid' });
    await all(({ get }) => get('/orders', narrow.access_token), insufficient);
    await all(({ get }) => get('/me', narrow.access_token), '200');
  });

  const bound = await tokensOf(miniProgram, { DPoP: await client.randomDPoPKeyPair('ES256') });
  assert.ok(decodeJwt(bound.access_token).cnf.jkt);
  const ofAudience = await tokensOf(audience);
  assert.equal(decodeJwt(ofAudience.id_token).aud, audience); // all but the typ is right
  const stranger = await generateKeyPair('ES256');
  const [head, payload, signature] = access.split('.');
  const raw = (first) => `${unsigned(first, claims)}${signature}`;
  const flipped = signature[10] === 'A' ? 'B' : 'A';

  const bad = {
    'garbage': 'garbage',
    'two dots': 'a.b.c',
    'not ASCII': 'é.é.é',
    'with a header that is no JSON': raw('{'),
    'with a header that is a list': raw('[]'),
    'with a header that is null': raw('null'),
    'with a header that is deep': raw(`${'['.repeat(5000)}${']'.repeat(5000)}`),
    'with a typ that is a number': raw({ ...header, typ: 1 }),
    'with a kid that is a list': raw({ ...header, kid: [header.kid] }),
    'with an alg that is an object': raw({ ...header, alg: {} }),
    'without an alg': raw({ typ: header.typ, kid: header.kid }),
    'a refresh token': good.refresh_token,
    'an ID Token for its own client': good.id_token,
    'an ID Token whose client is the audience': ofAudience.id_token,
    'for another audience': (await tokensOf('other')).access_token,
    'of another issuer': (await tokensOf(miniProgram, { at: foreign })).access_token,
    'bound to a key, as Bearer': bound.access_token,
    'not signed': unsigned({ ...header, alg: 'none' }, claims),
    'not signed, with the signature of another': raw({ ...header, alg: 'none' }),
    'signed by HMAC with the public key': confused(header, claims, pem),
    'signed by HMAC with the public key without its last line break': confused(header, claims, pem.trim()),
    'signed by a stranger': await new SignJWT(claims).setProtectedHeader(header).sign(stranger.privateKey),
    'with a changed signature': `${head}.${payload}.${signature.slice(0, 10)}${flipped}${signature.slice(11)}`,
    'with a changed payload': `${head}.${Buffer.from(JSON.stringify({ ...claims, sub: 'bob' })).toString('base64url')}.${signature}`,
    'without a signature': `${head}.${payload}`,
  };
  for (const [title, token] of Object.entries(bad)) {
    await t.test(title, async () => {
      await all(({ get }) => get('/orders', token), invalid);
      await all(({ get }) => get('/me', token), invalid);
    });
  }
  await t.test('bound to a key, as DPoP', async () => {
    for (const { name, get } of examples) {
      assert.equal((await get('/me', undefined, { authorization: `DPoP ${bound.access_token}` })).status, 401, name);
    }
  });
  await t.test('expired', async () => {
    await sleep(Math.max(0, decodeJwt(short.access_token).exp * 1000 + clockSkew + 1_500 - Date.now()));
    await all(({ get }) => get('/me', short.access_token), invalid);
  });
  await t.test('good still, after all that', () => all(({ get }) => get('/orders', access), '200'));
});

test('tokens through a rotation of the signing key', { timeout: 120_000 }, async () => {
  const kidOf = (token) => decodeProtectedHeader(token).kid;
  const configuration = await discover(server.issuer, miniProgram);
  let current = await tokensOf(miniProgram);
  const tokens = [current.access_token];
  for (let rotation = 0; rotation < 2; rotation++) { // the second goes to a key that nobody has seen
    await server.command(['keys', 'rotate', '--alg', 'ES256']);
    for (const deadline = Date.now() + 30_000; ; await sleep(500)) {
      current = await client.refreshTokenGrant(configuration, current.refresh_token);
      if (kidOf(current.access_token) !== kidOf(tokens.at(-1))) break;
      assert.ok(Date.now() < deadline, 'the key does not rotate');
    }
    tokens.push(current.access_token);
  }
  await sleep(betweenFetches + 500); // since what the last test had them look for
  for (const token of tokens.reverse()) await all(({ get }) => get('/orders', token), '200');
});

test('tokens that wxidp never makes', async (t) => {
  const future = () => Math.floor(Date.now() / 1000) + 120;
  const past = () => Math.floor(Date.now() / 1000) - 120;
  const rows = [
    { title: 'a good one', want: '200' },
    ...['ES256', 'RS256', 'EdDSA'].map((alg) => ({
      title: `by ${alg}`, header: { alg, kid: alg }, want: ({ algorithms }) => (algorithms.includes(alg) ? '200' : invalid),
    })),
    { title: 'typ in capitals', header: { typ: 'AT+JWT' }, want: '200' },
    { title: 'several audiences', claims: { aud: ['billing', audience] }, want: '200' },
    { title: 'the scope among others', claims: { scope: 'a orders.read b' }, want: '200' },
    { title: 'no scope', claims: { scope: undefined }, path: '/orders', want: insufficient },
    { title: 'no scope, for what needs none', claims: { scope: undefined }, want: '200' },
    { title: 'a scope that only begins alike', claims: { scope: 'orders.reader orders' }, path: '/orders', want: insufficient },
    { title: 'typ JWT', header: { typ: 'JWT' } },
    { title: 'no typ', header: { typ: undefined } },
    { title: 'typ logout+jwt', header: { typ: 'logout+jwt' } },
    { title: 'the kid of another key', header: { kid: 'RS256' }, by: 'ES256' },
    { title: 'an unknown kid', header: { kid: randomUUID() }, by: 'ES256' },
    { title: 'an algorithm that is not accepted', header: { alg: 'ES384', kid: 'ES384' } },
    { title: 'an extension that nobody knows', header: { crit: ['urn:x'], 'urn:x': 1 } },
    { title: 'another iss', claims: { iss: 'https://id.example.com' } },
    { title: 'an iss with one more slash', claims: (own) => ({ iss: `${own.iss}/` }) },
    { title: 'no iss', claims: { iss: undefined } },
    { title: 'other audiences', claims: { aud: ['billing', `${audience}2`] } },
    { title: 'no aud', claims: { aud: undefined } },
    { title: 'no sub', claims: { sub: undefined } },
    { title: 'no client_id', claims: { client_id: undefined } },
    { title: 'no exp', claims: { exp: undefined } },
    { title: 'expired', claims: () => ({ exp: past() }) },
    { title: 'not valid yet', claims: () => ({ nbf: future() }) },
    { title: 'bound to a key', claims: { cnf: { jkt: 'x' } } },
    { title: 'bound to a certificate', claims: { cnf: { 'x5t#S256': 'x' } } },
  ];
  for (const { title, header, claims, by, path = '/me', want = invalid } of rows) {
    await t.test(title, () => all(async ({ name, getForged }) => {
      const { claims: own } = forger.parts(name, audience);
      const parts = forger.parts(name, audience, { header, claims: typeof claims === 'function' ? claims(own) : claims });
      if (!header?.crit) return getForged(path, await forger.sign(parts, by));
      const { privateKey } = forger.keys.get('ES256');
      return getForged(path, await new SignJWT(parts.claims).setProtectedHeader(parts.header).sign(privateKey, { crit: { 'urn:x': true } }));
    }, want));
  }

  await t.test('with a key of its own in the header', async () => {
    const stranger = await generateKeyPair('ES256', { extractable: true });
    const jwk = await crypto.subtle.exportKey('jwk', stranger.publicKey);
    const jku = `${forger.issuer('evil')}/.well-known/jwks.json`;
    for (const own of [{ jwk }, { jku }, { x5u: jku }]) {
      await all(({ name, getForged }) => {
        const { header, claims } = forger.parts(name, audience, { header: own });
        return new SignJWT(claims).setProtectedHeader(header).sign(stranger.privateKey).then((token) => getForged('/me', token));
      }, invalid);
    }
    assert.equal(forger.fetches.get('evil'), undefined);
  });
});

test('a flood of unknown keys does not become a flood of requests', async () => {
  const flood = 100;
  const often = {};
  for (const { name, getForged } of examples) {
    const before = forger.fetches.get(name);
    const begin = performance.now();
    const answers = await Promise.all(Array.from({ length: flood }, async () =>
      verdict(await getForged('/me', await forger.sign(forger.parts(name, audience, { header: { kid: randomUUID() } }), 'ES256')))));
    const windows = 1 + Math.ceil((performance.now() - begin) / betweenFetches);
    assert.deepEqual([...new Set(answers)], [invalid], name);
    const fetches = forger.fetches.get(name) - before;
    if (fetches > 2 * windows) often[name] = fetches;
  }
  assert.deepEqual(often, {});
});

test('a key that is withdrawn is good no more, once the keys were fetched', async () => {
  const old = new Map();
  for (const { name } of examples) old.set(name, await forger.sign(forger.parts(name, audience)));
  await all(({ name, getForged }) => getForged('/me', old.get(name)), '200');
  forger.keys.delete('ES256');
  await forger.add('new', 'ES256');
  await sleep(betweenFetches + 500);
  await all(async ({ name, getForged }) => getForged('/me', await forger.sign(forger.parts(name, audience, { header: { kid: 'new' } }))), '200');
  await all(({ name, getForged }) => getForged('/me', old.get(name)), invalid);
});

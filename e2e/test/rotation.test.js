// Signing keys rotate under a validator that trusts the served max-age.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import * as client from 'openid-client';
import { discover, signIn } from '../lib/oidc.js';
import { appID, audience, startServe } from '../lib/server.js';

const server = await startServe({
  config: `tokens: { access_token_lifetime: 60s, id_token_lifetime: 60s }
keys: { publish_ahead: 4s, rotate_every: 5s }
clients:
  - client_id: shop-mini
    type: public
    wechat_appid: ${appID}
    grant_types: [wechat_jscode, refresh_token]
    scopes: [openid]
    default_scopes: [openid]
    audience: [${audience}]
`,
});
after(() => server.stop());

test('jose meets no unknown key across a rotation', { timeout: 120_000 }, async (t) => {
  // openid-client keeps a JWK Set of its own for minutes, whatever its max-age.
  const config = await discover(server.issuer, 'shop-mini', { verify: false });
  const uri = new URL(config.serverMetadata().jwks_uri);
  const maxAge = Number(/max-age=(\d+)/.exec((await fetch(uri)).headers.get('cache-control'))[1]);
  assert.equal(maxAge, 2);
  // With a cooldown as long as the max-age, an unknown kid is an error and not
  // a reason to fetch again.
  const jwks = createRemoteJWKSet(uri, { cacheMaxAge: maxAge * 1000, cooldownDuration: maxAge * 1000 });

  const seen = { ES256: new Map(), RS256: new Map() }; // kid to the first token it signed
  const verify = async (token, expected, alg) => {
    const { protectedHeader } = await jwtVerify(token, jwks, { issuer: server.issuer, algorithms: [alg], ...expected });
    if (!seen[alg].has(protectedHeader.kid)) seen[alg].set(protectedHeader.kid, token);
  };
  const rotated = () => seen.ES256.size > 1 && seen.RS256.size > 1;

  let tokens = await signIn(config, await server.login('alice'));
  let verified = 0;
  while (!rotated()) {
    await verify(tokens.access_token, { audience, typ: 'at+jwt' }, 'ES256');
    await verify(tokens.id_token, { audience: 'shop-mini', typ: 'JWT' }, 'RS256');
    verified++;
    await sleep(100);
    tokens = await client.refreshTokenGrant(config, tokens.refresh_token);
  }
  t.diagnostic(`${verified} token pairs verified`);

  // What the retired keys signed is still good, for a validator that starts now too.
  const fresh = createRemoteJWKSet(uri);
  for (const [alg, keys] of Object.entries(seen)) {
    for (const token of keys.values()) {
      await jwtVerify(token, fresh, { issuer: server.issuer, algorithms: [alg], clockTolerance: 60 });
    }
  }
});

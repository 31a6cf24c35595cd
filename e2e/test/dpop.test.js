// Tokens that are bound to a key (RFC 9449), by the DPoP of openid-client.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { calculateJwkThumbprint, createRemoteJWKSet, exportJWK, jwtVerify } from 'jose';
import * as client from 'openid-client';
import { discover, refusal } from '../lib/oidc.js';
import { appID, audience, miniProgram, startServe } from '../lib/server.js';

const mobile = 'bound-mini';
const configuration = `tokens: { dpop_nonce: NONCE }
clients:
  - client_id: ${miniProgram}
    type: public
    wechat_appid: ${appID}
    grant_types: [wechat_jscode, refresh_token]
    id_token_signed_response_alg: ES256
    scopes: [openid, profile]
    default_scopes: [openid]
    audience: [${audience}]
  - client_id: ${mobile}
    type: public
    wechat_appid: ${appID}
    grant_types: [wechat_jscode, refresh_token]
    id_token_signed_response_alg: ES256
    dpop_bound_access_tokens: true
    scopes: [openid]
    default_scopes: [openid]
    audience: [${audience}]
`;

for (const nonce of [false, true]) {
  const server = await startServe({ config: configuration.replace('NONCE', nonce) });
  after(() => server.stop());
  const config = await discover(server.issuer, miniProgram);
  const metadata = config.serverMetadata();
  const jwks = createRemoteJWKSet(new URL(metadata.jwks_uri));
  const signIn = async (user, options, on = config) =>
    client.genericGrantRequest(on, 'wechat_jscode', { js_code: await server.login(user) }, options);
  const title = (text) => `${text}${nonce ? ', with nonces' : ''}`;

  for (const alg of metadata.dpop_signing_alg_values_supported) {
    // WebCrypto of older Nodes knows Ed25519 by another name.
    if (alg === 'EdDSA') continue;
    test(title(`sign-in, refresh and UserInfo with a key of ${alg}`), async () => {
      const keys = await client.randomDPoPKeyPair(alg, { extractable: true });
      const DPoP = client.getDPoPHandle(config, keys);
      const first = await signIn('alice', { DPoP });
      assert.equal(first.token_type, 'dpop');
      const { payload } = await jwtVerify(first.access_token, jwks, { issuer: server.issuer, audience, typ: 'at+jwt' });
      assert.deepEqual(payload.cnf, { jkt: await calculateJwkThumbprint(await exportJWK(keys.publicKey)) });

      const second = await client.refreshTokenGrant(config, first.refresh_token, undefined, { DPoP });
      assert.equal(second.token_type, 'dpop');
      const { sub } = first.claims();
      assert.equal((await client.fetchUserInfo(config, second.access_token, sub, { DPoP })).sub, sub);

      const other = { DPoP: client.getDPoPHandle(config, await client.randomDPoPKeyPair(alg)) };
      assert.equal((await refusal(() => client.refreshTokenGrant(config, second.refresh_token, undefined, other))).error, 'invalid_grant');
      assert.equal((await refusal(() => client.refreshTokenGrant(config, second.refresh_token))).error, 'invalid_dpop_proof');
      for (const options of [other, undefined]) {
        await assert.rejects(client.fetchUserInfo(config, second.access_token, sub, options), (err) => {
          assert.ok(err instanceof client.WWWAuthenticateChallengeError);
          assert.equal(err.status, 401);
          assert.equal(err.cause[0].scheme, 'dpop');
          assert.equal(err.cause[0].parameters.error, 'invalid_token');
          assert.equal(err.cause[0].parameters.algs, metadata.dpop_signing_alg_values_supported.join(' '));
          return true;
        });
      }
      // What was refused has touched nothing.
      await client.refreshTokenGrant(config, second.refresh_token, undefined, { DPoP });
    });
  }

  test(title('a client of dpop_bound_access_tokens gets nothing without a proof'), async () => {
    const bound = await discover(server.issuer, mobile);
    assert.equal((await refusal(() => signIn('bob', undefined, bound))).error, 'invalid_dpop_proof');
    const DPoP = client.getDPoPHandle(bound, await client.randomDPoPKeyPair('ES256'));
    const tokens = await signIn('bob', { DPoP }, bound);
    assert.equal((await refusal(() => client.refreshTokenGrant(bound, tokens.refresh_token))).error, 'invalid_dpop_proof');
    await client.refreshTokenGrant(bound, tokens.refresh_token, undefined, { DPoP });
  });

  test(title('who proves nothing gets bearer tokens'), async () => {
    const tokens = await signIn('carol');
    assert.equal(tokens.token_type, 'bearer');
    assert.ok((await client.fetchUserInfo(config, tokens.access_token, tokens.claims().sub)).sub);
  });
}

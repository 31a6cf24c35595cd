// Browser sign-in with oauth4webapi, step by step and with every check it has,
// at a server whose DPoP proofs need a nonce.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, test } from 'node:test';
import * as oauth from 'oauth4webapi';
import { newPerson } from '../lib/person.js';
import { startServe } from '../lib/server.js';

const redirectURI = 'http://127.0.0.1:3000/callback?from=wxidp'; // nobody listens there
const secret = randomBytes(32).toString('base64');
const server = await startServe({
  config: `tokens: { dpop_nonce: true }
clients:
  - client_id: shop-web
    type: confidential
    client_secret_file: secrets/web
    token_endpoint_auth_method: client_secret_post
    grant_types: [authorization_code, refresh_token]
    redirect_uris: ["${redirectURI}"]
    id_token_signed_response_alg: ES256
    scopes: [openid, profile]
`,
  files: { 'secrets/web': `${secret}\n` },
});
after(() => server.stop());

const local = { [oauth.allowInsecureRequests]: true }; // plain http is for loopback; nobody can listen in there
const issuer = new URL(server.issuer);
const as = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, local));
const client = { client_id: 'shop-web', id_token_signed_response_alg: 'ES256' };
const auth = oauth.ClientSecretPost(secret);

let nonceErrors = 0;

/** Sends a request with a proof, and once more where the server wants another nonce in it. */
async function proven(DPoP, send, read) {
  const answer = await send({ ...local, DPoP });
  try {
    return await read(answer);
  } catch (err) {
    if (!oauth.isDPoPNonceError(err)) throw err;
    nonceErrors++;
    return read(await send({ ...local, DPoP }));
  }
}

for (const push of [false, true]) {
  for (const mode of ['query', 'form_post']) {
    test(`sign-in with nonces in proofs: ${mode}${push ? ', pushed' : ''}`, async () => {
      const person = await newPerson(server, `alice-${mode}-${push}`);
      nonceErrors = 0;
      const DPoP = oauth.DPoP(client, await oauth.generateKeyPair('ES256'));
      const verifier = oauth.generateRandomCodeVerifier();
      const [state, nonce] = [oauth.generateRandomState(), oauth.generateRandomNonce()];
      let params = new URLSearchParams({
        client_id: client.client_id, response_type: 'code', redirect_uri: redirectURI, scope: 'openid profile', state, nonce,
        code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256', max_age: '300',
        response_mode: mode,
      });
      if (push) {
        const pushed = await proven(DPoP, (options) => oauth.pushedAuthorizationRequest(as, client, auth, params, options),
          (answer) => oauth.processPushedAuthorizationResponse(as, client, answer));
        params = new URLSearchParams({ client_id: client.client_id, request_uri: pushed.request_uri });
      }
      const url = new URL(as.authorization_endpoint);
      url.search = params;
      const request = await person.authorize(url, redirectURI);
      const answer = mode === 'query' ? new URL(request.url) : new URLSearchParams(await request.text());
      if (mode === 'query') answer.searchParams.delete('from'); // the client's own
      const callback = oauth.validateAuthResponse(as, client, answer, state);

      const tokens = await proven(DPoP,
        (options) => oauth.authorizationCodeGrantRequest(as, client, auth, callback, redirectURI, verifier, options),
        (response) => oauth.processAuthorizationCodeResponse(as, client, response, {
          expectedNonce: nonce, maxAge: 300, requireIdToken: true,
        }));
      assert.equal(tokens.token_type, 'dpop');

      const claims = oauth.getValidatedIdTokenClaims(tokens);
      const info = await proven(DPoP,
        (options) => oauth.userInfoRequest(as, client, tokens.access_token, options),
        (response) => oauth.processUserInfoResponse(as, client, claims.sub, response));
      assert.equal(info.sub, claims.sub);

      const refreshed = await proven(DPoP,
        (options) => oauth.refreshTokenGrantRequest(as, client, auth, tokens.refresh_token, options),
        (response) => oauth.processRefreshTokenResponse(as, client, response));
      assert.equal(oauth.getValidatedIdTokenClaims(refreshed).sub, claims.sub);
      await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, auth, refreshed.refresh_token, local));
      await assert.rejects(proven(DPoP,
        (options) => oauth.refreshTokenGrantRequest(as, client, auth, refreshed.refresh_token, options),
        (response) => oauth.processRefreshTokenResponse(as, client, response)), { error: 'invalid_grant' });
      assert.equal(nonceErrors, 1); // the first nonce serves all endpoints
    });
  }
}

test('the signature of the ID Token', async () => {
  const person = await newPerson(server, 'bob');
  const verifier = oauth.generateRandomCodeVerifier();
  const url = new URL(as.authorization_endpoint);
  url.search = new URLSearchParams({
    client_id: client.client_id, response_type: 'code', redirect_uri: redirectURI, scope: 'openid',
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
  });
  const request = await person.authorize(url, redirectURI);
  // Neither state nor nonce was sent, so none may come.
  const callback = oauth.validateAuthResponse(as, client, new URL(request.url), oauth.expectNoState);
  const response = await oauth.authorizationCodeGrantRequest(as, client, auth, callback, redirectURI, verifier, local);
  const tokens = await oauth.processAuthorizationCodeResponse(as, client, response, { expectedNonce: oauth.expectNoNonce, requireIdToken: true });
  assert.equal(tokens.token_type, 'bearer');
  await oauth.validateApplicationLevelSignature(as, response, local);
});

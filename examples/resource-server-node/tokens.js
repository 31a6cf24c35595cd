// Verifies the access tokens (RFC 9068) of one issuer for one audience.

import { createRemoteJWKSet, customFetch, errors, jwtVerify } from 'jose';

const keepKeys = 600_000; // ms
const betweenFetches = 5_000; // ms
const clockSkew = 5; // s

// What jose says when it is not the token's fault: there is no usable JWK Set.
const outages = ['ERR_JWKS_TIMEOUT', 'ERR_JWKS_INVALID', 'ERR_JOSE_GENERIC'];

/** Why a request is refused: 401 without a code where there was no token. */
export class Refused extends Error {
  constructor(status, code, scope) {
    super(code);
    Object.assign(this, { status, code, scope });
  }

  /** The header WWW-Authenticate of RFC 6750 §3. */
  challenge(realm) {
    const parameters = Object.entries({ realm, error: this.code, scope: this.scope }).filter(([, value]) => value);
    return `Bearer ${parameters.map(([name, value]) => `${name}="${value}"`).join(', ')}`;
  }
}

/**
 * Like fetch, but after a failure it fails at once for a while. jose waits by
 * itself after a success only.
 */
function patientFetch() {
  let failed = -Infinity;
  return async (url, options) => {
    if (performance.now() - failed < betweenFetches) throw new Error('the issuer did not answer a moment ago');
    try {
      const response = await fetch(url, options);
      if (response.status === 200) return response;
      throw new Error(`the JWK Set is answered with ${response.status}`);
    } catch (err) {
      failed = performance.now();
      throw err;
    }
  };
}

/**
 * Returns a function that returns the claims of an access token. It throws
 * Refused for a token that is no good, and another error where that cannot be told.
 * The key set is fetched when it is first needed, then every ten minutes, and
 * earlier for a key it does not have, but not more often than every few seconds.
 */
export function accessTokens(issuer, audience) {
  const keys = createRemoteJWKSet(new URL(`${issuer}/.well-known/jwks.json`), {
    cacheMaxAge: keepKeys, cooldownDuration: betweenFetches, timeoutDuration: 3_000, [customFetch]: patientFetch(),
  });
  const expected = {
    issuer,
    audience,
    typ: 'at+jwt',
    algorithms: ['ES256', 'RS256', 'EdDSA'],
    requiredClaims: ['sub', 'client_id', 'exp'],
    clockTolerance: clockSkew,
  };
  return async (token) => {
    try {
      const { payload } = await jwtVerify(token, keys, expected);
      // Bound to a key (RFC 9449): of no use without a proof, which nobody checks here.
      if (payload.cnf !== undefined) throw new Refused(401, 'invalid_token');
      return payload;
    } catch (err) {
      if (err instanceof errors.JOSEError && !outages.includes(err.code)) throw new Refused(401, 'invalid_token');
      throw err;
    }
  };
}

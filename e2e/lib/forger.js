// An issuer whose keys the test has: it makes the tokens that wxidp never
// makes, changes its keys at will, is out of order at will, and counts who asks.

import { createHmac } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { exportJWK, exportSPKI, generateKeyPair, SignJWT } from 'jose';

const encode = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');

/** A token without a signature, of the header and claims as given. */
export const unsigned = (header, claims) => `${encode(header)}.${encode(claims)}.`;

/** A token signed with a public key as if it were a shared secret. */
export function confused(header, claims, secret) {
  const input = unsigned({ ...header, alg: 'HS256' }, claims).slice(0, -1);
  return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`;
}

export class Forger {
  /** The keys it publishes, by kid. */
  keys = new Map();

  /** Whether it answers with its keys. */
  up = true;

  /** How often its keys were asked for, by the name of who asks. */
  fetches = new Map();

  static async start() {
    const forger = new Forger();
    for (const alg of ['ES256', 'RS256', 'EdDSA', 'ES384']) await forger.add(alg, alg);
    forger.server = createServer((request, response) => forger.#answer(request, response)).listen(0, '127.0.0.1');
    await once(forger.server, 'listening');
    forger.origin = `http://127.0.0.1:${forger.server.address().port}`;
    return forger;
  }

  /** The issuer as one validator sees it, so that its requests are told apart. */
  issuer(validator) {
    return `${this.origin}/${validator}`;
  }

  /** Publishes a new key. */
  async add(kid, alg) {
    const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
    const jwk = { ...await exportJWK(publicKey), kid, alg, use: 'sig' };
    this.keys.set(kid, { alg, jwk, privateKey, pem: await exportSPKI(publicKey) });
  }

  #answer(request, response) {
    const [, validator, path] = /^\/([a-z]+)\/(.*)$/.exec(request.url) ?? [];
    this.fetches.set(validator, (this.fetches.get(validator) ?? 0) + 1);
    if (path !== '.well-known/jwks.json') return response.writeHead(404).end();
    if (!this.up) return response.writeHead(503).end();
    response.writeHead(200, { 'content-type': 'application/jwk-set+json', 'cache-control': 'public, max-age=60' });
    response.end(JSON.stringify({ keys: [...this.keys.values()].map(({ jwk }) => jwk) }));
  }

  /** Header and claims of a good token; undefined takes a member away. */
  parts(validator, audience, { header = {}, claims = {} } = {}) {
    const now = Math.floor(Date.now() / 1000);
    const whole = (members) => Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
    return {
      header: whole({ alg: 'ES256', typ: 'at+jwt', kid: 'ES256', ...header }),
      claims: whole({
        iss: this.issuer(validator), sub: 'alice', aud: audience, client_id: 'shop-mini', scope: 'openid orders.read',
        iat: now, exp: now + 300, jti: 'one', ...claims,
      }),
    };
  }

  /** A token of those parts, signed by the published key that by names; by default the one of its kid. */
  sign({ header, claims }, by = header.kid) {
    const { privateKey } = this.keys.get(by);
    return new SignJWT(claims).setProtectedHeader(header).sign(privateKey);
  }

  async stop() {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }
}

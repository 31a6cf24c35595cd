// The orders API. What a good access token is stands in tokens.js.

import { createServer } from 'node:http';
import { accessTokens, Refused } from './tokens.js';

function setting(name) {
  if (process.env[name]) return process.env[name];
  console.error(`${name} is not set`);
  process.exit(1);
}

const verify = accessTokens(setting('ISSUER'), setting('AUDIENCE'));

const routes = {
  'GET /orders': { scope: 'orders.read', answer: ({ sub }) => ({ sub, orders: [{ id: '1001', item: 'tea' }] }) },
  'GET /me': { answer: ({ sub, client_id }) => ({ sub, client_id }) },
};

/** Returns the token of the header; a token in the URL or the body counts as none (RFC 6750 §2.2 and §2.3 are optional). */
function bearer({ headers }) {
  const [, token] = /^Bearer +(.*)$/i.exec(headers.authorization ?? '') ?? [];
  if (!token) throw new Refused(401);
  return token;
}

async function answer(req) {
  const route = routes[`${req.method} ${req.url.split('?')[0]}`];
  if (!route) return { status: 404, body: { error: 'not_found' } };
  try {
    const claims = await verify(bearer(req));
    const scopes = typeof claims.scope === 'string' ? claims.scope.split(' ') : [];
    if (route.scope && !scopes.includes(route.scope)) throw new Refused(403, 'insufficient_scope', route.scope);
    return { status: 200, body: route.answer(claims) };
  } catch (err) {
    if (err instanceof Refused) {
      return { status: err.status, headers: { 'www-authenticate': err.challenge('orders') }, body: { error: err.code } };
    }
    console.error('tokens cannot be verified:', err);
    return { status: 503, headers: { 'retry-after': '5' }, body: { error: 'temporarily_unavailable' } };
  }
}

createServer(async (req, res) => {
  const { status, headers, body } = await answer(req);
  res.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store', ...headers });
  res.end(`${JSON.stringify(body)}\n`);
}).listen(Number(process.env.PORT ?? 3000), '127.0.0.1');

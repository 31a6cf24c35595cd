// A web application on another origin than the issuer, which signs people in
// with openid-client and shows what browsers bring back.

import { once } from 'node:events';
import { createServer } from 'node:http';
import * as client from 'openid-client';

const page = (title) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><link rel="icon" href="data:,"><h1>${title}</h1>`;

export class WebApp {
  /** What browsers have posted to /callback, as Request objects. */
  posted = [];

  static async start() {
    const app = new WebApp();
    app.server = createServer((request, response) => app.#answer(request, response)).listen(0, '127.0.0.1');
    await once(app.server, 'listening');
    app.origin = `http://localhost:${app.server.address().port}`;
    app.callback = `${app.origin}/callback`;
    app.home = `${app.origin}/`;
    return app;
  }

  async #answer(request, response) {
    const body = [];
    for await (const chunk of request) body.push(chunk);
    if (request.method === 'POST') {
      this.posted.push(new Request(this.origin + request.url, {
        method: 'POST', headers: { 'Content-Type': request.headers['content-type'] }, body: Buffer.concat(body),
      }));
    }
    response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' }).end(page(request.url.split('?')[0]));
  }

  /** Begins a sign-in: where to send the browser, and what to remember until it is back. */
  async begin(config, parameters = {}) {
    const verifier = client.randomPKCECodeVerifier();
    const checks = { pkceCodeVerifier: verifier, expectedState: client.randomState(), expectedNonce: client.randomNonce() };
    const url = client.buildAuthorizationUrl(config, {
      redirect_uri: this.callback, scope: 'openid profile', state: checks.expectedState, nonce: checks.expectedNonce,
      code_challenge: await client.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256', ...parameters,
    });
    return { url: url.href, checks };
  }

  /** Ends it with what the browser brought: a URL, or a Request that it posted. */
  finish(config, { checks }, brought) {
    return client.authorizationCodeGrant(config, brought instanceof Request ? brought : new URL(brought), checks);
  }

  async stop() {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, 'close');
  }
}

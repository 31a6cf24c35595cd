// A person with a browser: follows redirects, keeps cookies, and fills in the
// forms of wxidp's pages. No scripts run in it.

import { strict as assert } from 'node:assert';

const maxSteps = 20; // of redirects and pages, before it goes round in circles
const patience = 20_000; // ms, for one answer

export const password = 'correct horse battery staple';

const unescape = (text) => text
  .replace(/&#(\d+);/g, (_, code) => String.fromCodePoint(code))
  .replaceAll('&quot;', '"').replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&');

const attribute = (tag, name) => {
  const found = new RegExp(`\\s${name}="([^"]*)"`).exec(tag);
  return found && unescape(found[1]);
};

export class Person {
  #cookies = new Map(); // by host name, as ports share them

  /** The account must exist; newPerson makes one. */
  constructor(username) {
    this.username = username;
  }

  #jar(url) {
    const { hostname } = new URL(url);
    if (!this.#cookies.has(hostname)) this.#cookies.set(hostname, new Map());
    return this.#cookies.get(hostname);
  }

  #keep(url, response) {
    const jar = this.#jar(url);
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
      const age = /;\s*max-age=(-?\d+)/i.exec(line);
      const expires = /;\s*expires=([^;]+)/i.exec(line);
      const gone = age ? Number(age[1]) <= 0 : expires && Date.parse(expires[1]) <= Date.now();
      if (gone) jar.delete(name);
      else jar.set(name, value);
    }
  }

  /**
   * Sends a request and follows redirects. Returns the page it ends at or,
   * before it is sent, the first request to a URL that begins with until.
   */
  async #send(request, until) {
    for (let step = 0; step < maxSteps; step++) {
      const { url } = request;
      if (until && url.startsWith(until)) return { url, request };
      const cookies = [...this.#jar(url)].map(([name, value]) => `${name}=${value}`).join('; ');
      if (cookies) request.headers.set('Cookie', cookies);
      const response = await fetch(request, { redirect: 'manual', signal: AbortSignal.timeout(patience) });
      this.#keep(url, response);
      const location = response.headers.get('Location');
      if (!location) return { url, status: response.status, text: await response.text() };
      await response.body?.cancel();
      request = new Request(new URL(location, url));
    }
    throw new Error(`redirected without end at ${request.url}`);
  }

  /** Opens a URL. */
  visit(url, until) {
    return this.#send(new Request(url), until);
  }

  /** Presses the button with this id, or sends the form that has it, after filling in fields. */
  submit(page, id, fields = {}, until = undefined) {
    const form = /<form\b[^]*?<\/form>/g[Symbol.match](page.text)?.find((text) => text.includes(`id="${id}"`));
    assert.ok(form, `nothing to press with the id ${id} at ${page.url}: ${page.status} ${page.text}`);
    const body = new URLSearchParams();
    for (const [input] of form.matchAll(/<input\b[^>]*>/g)) {
      body.set(attribute(input, 'name'), attribute(input, 'value') ?? '');
    }
    for (const [name, value] of Object.entries(fields)) body.set(name, value);
    const target = new URL(attribute(form, 'action'), page.url);
    const headers = { Origin: new URL(page.url).origin };
    return this.#send(new Request(target, { method: 'POST', body, headers }), until);
  }

  /**
   * Opens a URL and does what wxidp asks for: signs in, then presses the button
   * of the consent page. Ends at the first page of somebody else, or before the
   * request to until.
   */
  async go(url, { until, consent = 'allow' } = {}) {
    const has = (id) => page.text?.includes(`id="${id}"`);
    let page = await this.visit(url, until);
    for (let step = 0; step < maxSteps; step++) {
      if (has('sign-in')) page = await this.submit(page, 'sign-in', { username: this.username, password }, until);
      else if (has('allow')) page = await this.submit(page, consent, {}, until);
      else if (has('form-post')) page = await this.submit(page, 'form-post', {}, until);
      else return page;
    }
    throw new Error(`asked without end at ${page.url}`);
  }

  /** Follows an authorization request; returns the request that brings the answer to the client. */
  async authorize(url, redirectURI, options) {
    const page = await this.go(url, { until: redirectURI, ...options });
    assert.ok(page.request, `the way back to the client ends at ${page.url}: ${page.status} ${page.text}`);
    return page.request;
  }
}

/** Makes an account and a person who has it. */
export async function newPerson(server, username) {
  await server.command(['users', 'add', '--username', username], `${password}\n`);
  return new Person(username);
}

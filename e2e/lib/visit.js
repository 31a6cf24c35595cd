// One person's browser, in one language, colour scheme and size, that tells of
// everything that a page must not do.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import axe from 'axe-core/axe.min.js';
import { root } from './server.js';

const screenshots = join(root, 'e2e', 'screenshots');
mkdirSync(screenshots, { recursive: true });

const patience = 15_000; // ms; of everything that is waited for

const rules = { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'], preload: false, resultTypes: ['violations'] };

/** What a browser is like: every language, colour scheme and size. */
export const looks = ['zh-CN', 'en'].flatMap((lang) => ['light', 'dark'].flatMap((scheme) => [
  { width: 390, height: 844 }, { width: 1280, height: 800 },
].map((viewport) => ({ lang, scheme, viewport, name: `${lang}-${scheme}-${viewport.width}` }))));

export class Visit {
  #problems = [];
  #refused = new Map(); // URLs of pages that answered with an error, with its status
  #allowed;

  /** ip is the address that the issuer sees; hosts are those that pages may lead to. */
  static async open(browser, { look, ip, hosts, javaScript = true, ...more }) {
    const visit = new Visit();
    visit.look = look;
    visit.#allowed = new Set(hosts);
    visit.context = await browser.newContext({
      locale: look.lang, colorScheme: look.scheme, viewport: look.viewport, hasTouch: look.viewport.width < 500,
      reducedMotion: 'reduce', javaScriptEnabled: javaScript, ignoreHTTPSErrors: true,
      ...(ip && { extraHTTPHeaders: { 'X-Forwarded-For': ip } }), ...more,
    });
    visit.context.setDefaultTimeout(patience);
    visit.#watch();
    await visit.context.addInitScript(() => {
      addEventListener('securitypolicyviolation', (event) => console.error(`CSP: ${event.violatedDirective} forbids ${event.blockedURI}`));
    });
    visit.page = await visit.context.newPage();
    return visit;
  }

  #watch() {
    const told = (what) => this.#problems.push(what);
    this.context.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) told({ text: message.text(), url: message.location().url });
    });
    this.context.on('weberror', (error) => told({ text: error.error().stack }));
    this.context.on('request', (request) => {
      const url = new URL(request.url());
      if (url.protocol !== 'data:' && !this.#allowed.has(url.host)) told({ text: 'a request to another host', url: url.href });
    });
    this.context.on('response', (response) => {
      if (response.request().isNavigationRequest()) {
        this.status = response.status();
        if (this.status >= 400) this.#refused.set(response.url(), this.status);
      } else if (response.status() >= 400) {
        told({ text: `answered with ${response.status()}`, url: response.url() });
      }
    });
  }

  /** Where a screenshot of that name is kept. */
  picture(name) {
    return join(screenshots, `${name}-${this.look.name}.png`);
  }

  /**
   * Looks at the page as it is, and keeps a screenshot. status is what it must
   * have been answered with.
   */
  async check(name, { status = 200 } = {}) {
    const about = `${name} ${this.look.name}`;
    assert.equal(this.status, status, `${about}: status`);
    const seen = await this.page.evaluate(() => ({
      lang: document.documentElement.lang,
      wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      small: [...document.querySelectorAll('button, .button, input:not([type=hidden]), nav a')]
        .filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 43.5).map((e) => e.id || e.outerHTML),
    }));
    assert.deepEqual(seen, { lang: this.look.lang, wide: 0, small: [] }, about);
    await this.page.screenshot({ path: this.picture(name), fullPage: true, caret: 'initial' });
    await this.page.evaluate(axe.source);
    const { violations } = await this.page.evaluate((options) => window.axe.run(document, options), rules);
    assert.deepEqual(violations.map(({ id, nodes }) => ({ id, nodes: nodes.map((n) => `${n.html}: ${n.failureSummary}`) })), [], about);
    this.assertClean(about);
  }

  /** Asserts that no page has done what it must not. */
  assertClean(about = 'all pages') {
    const problems = this.#problems.filter(({ text, url }) =>
      // Chromium itself says in the console that a page came with an error.
      !(this.#refused.has(url) && text.includes(`responded with a status of ${this.#refused.get(url)}`)));
    assert.deepEqual(problems, [], about);
  }

  /** Waits until the browser is at a URL that begins so, and returns the URL. */
  async arrive(prefix) {
    await this.#explain(prefix, this.page.waitForURL((url) => url.href.startsWith(prefix)));
    return this.page.url();
  }

  /** Waits until there is an element of that id to see. */
  see(id) {
    return this.#explain(`#${id}`, this.page.locator(`#${id}`).waitFor());
  }

  press(id) {
    return this.#explain(`#${id}`, this.page.locator(`#${id}`).click());
  }

  /** Adds to the error of something awaited what is there in its place. */
  async #explain(what, awaited) {
    try {
      return await awaited;
    } catch (err) {
      throw new Error(`waited for ${what}, but there is ${this.status} ${this.page.url()}: ${await this.page.locator('body').innerText()}`, { cause: err });
    }
  }

  text(id) {
    return this.page.locator(`#${id}`).innerText();
  }

  async signIn(username, password) {
    await this.page.locator('#username').fill(username);
    await this.page.locator('#password').fill(password);
    await this.press('sign-in');
  }

  async close() {
    await this.context.close();
    this.assertClean();
  }
}

// What the browser tests have in common: a server with scanning switched on, a
// web application, one browser, and people.

import { randomBytes } from 'node:crypto';
import * as client from 'openid-client';
import { launch } from '../lib/chromium.js';
import { discover } from '../lib/oidc.js';
import { Phone } from '../lib/phone.js';
import { appID, miniProgram, startServe } from '../lib/server.js';
import { Visit } from '../lib/visit.js';
import { WebApp } from '../lib/webapp.js';

const password = 'correct horse battery';
const secret = randomBytes(32).toString('base64');

const config = (app) => `trusted_proxies: [127.0.0.1/32] # tests say by X-Forwarded-For where a browser is
scan: { appid: ${appID} }
clients:
  - client_id: ${miniProgram}
    name: 小店
    type: public
    wechat_appid: ${appID}
    grant_types: [wechat_jscode, refresh_token]
    scopes: [openid, device.approve]
    default_scopes: [openid]
  - client_id: shop-web
    name: 小店网页版
    type: confidential
    client_secret_file: secrets/shop-web
    grant_types: [authorization_code, refresh_token]
    redirect_uris: ["${app.callback}"]
    post_logout_redirect_uris: ["${app.home}"]
    scopes: [openid, profile, phone, offline_access]
  - client_id: shop-own
    name: 小店后台
    type: confidential
    client_secret_file: secrets/shop-web
    grant_types: [authorization_code]
    redirect_uris: ["${app.callback}"]
    consent: skip
    scopes: [openid]
  - client_id: shop-tv
    name: 小店电视版
    type: public
    grant_types: ["urn:ietf:params:oauth:grant-type:device_code"]
    id_token_signed_response_alg: ES256
    scopes: [openid, profile]
`;

export class World {
  password = password;
  #addresses = 0;

  static async start(chromium) {
    const world = new World();
    world.app = await WebApp.start();
    world.server = await startServe({ config: config(world.app), files: { 'secrets/shop-web': `${secret}\n` } });
    world.issuer = world.server.issuer;
    world.browser = await launch(chromium);
    const auth = client.ClientSecretBasic(secret);
    world.web = await discover(world.issuer, 'shop-web', { auth });
    world.own = await discover(world.issuer, 'shop-own', { auth });
    world.tv = await discover(world.issuer, 'shop-tv', { metadata: { id_token_signed_response_alg: 'ES256' } });
    return world;
  }

  async stop() {
    await this.browser.close();
    await this.server.stop();
    await this.app.stop();
  }

  /** An address that nothing came from yet, so that limits by address hold for one test. */
  address() {
    return `203.0.113.${++this.#addresses}`;
  }

  /** Adds somebody, at an address of their own. An account takes one password at a time. */
  async person(name) {
    const ip = this.address();
    const person = { username: `${name}-${ip.split('.').at(-1)}`, ip };
    await this.server.command(['users', 'add', '--username', person.username, '--nickname', '小明'], `${password}\n`);
    return person;
  }

  /** Opens a browser that knows nothing yet. */
  visit(look, ip, more = {}) {
    return Visit.open(this.browser, { look, ip, hosts: [new URL(this.issuer).host, new URL(this.app.origin).host], ...more });
  }

  async phone(user, ip) {
    const phone = new Phone(this.server, user, ip);
    await phone.signIn();
    return phone;
  }

  /** Sends the browser to the issuer on behalf of shop-web, or of another client. */
  async authorize(visit, parameters, config = this.web) {
    const begun = await this.app.begin(config, parameters);
    await visit.page.goto(begun.url);
    return begun;
  }

  /** Waits until the browser is back at the application, and returns what it brought. */
  async back(visit) {
    return new URL(await visit.arrive(this.app.callback)).searchParams;
  }

  /** Waits until the browser is back, and returns the tokens. */
  async tokens(visit, begun, config = this.web) {
    return this.app.finish(config, begun, await visit.arrive(this.app.callback));
  }
}

// A phone as far as wxidp sees it: the mini-program of shop-mini with the access
// token of a WeChat user, who decides about screens elsewhere.

import { miniProgram } from './server.js';

export class Phone {
  #server;
  #user;
  #ip;
  #token;

  constructor(server, user, ip) {
    this.#server = server;
    this.#user = user;
    this.#ip = ip;
  }

  async #post(path, form) {
    const response = await fetch(`${this.#server.issuer}${path}`, {
      method: 'POST',
      headers: { 'X-Forwarded-For': this.#ip, ...(this.#token && { Authorization: `Bearer ${this.#token}` }) },
      body: new URLSearchParams(form),
    });
    return { status: response.status, body: await response.json() };
  }

  async #succeed(path, form) {
    const { status, body } = await this.#post(path, form);
    if (status !== 200) throw new Error(`${path}: ${status} ${JSON.stringify(body)}`);
    return body;
  }

  async signIn() {
    const tokens = await this.#succeed('/oauth2/token', {
      grant_type: 'wechat_jscode', client_id: miniProgram, scope: 'openid device.approve', js_code: await this.#server.login(this.#user),
    });
    this.#token = tokens.access_token;
  }

  /** Scans: returns who asks. ticket is the link in the code, or a user code. */
  scan(ticket) {
    return this.#succeed('/device/context', { ticket });
  }

  approve(ticket, number) {
    return this.#succeed('/device/approve', { ticket, number });
  }

  /** Tries to approve, and returns the answer's status. */
  async tryToApprove(ticket, number) {
    return (await this.#post('/device/approve', { ticket, number })).status;
  }

  deny(ticket) {
    return this.#succeed('/device/deny', { ticket });
  }
}

// A phone with WeChat, as far as a mini-program can tell: loads its files, keeps
// its pages, shows what their WXML says, and lets the test tap and type.

import { strict as assert } from 'node:assert';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import vm from 'node:vm';
import { parseWXML, render } from './wxml.js';

const methods = ['OPTIONS', 'GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'TRACE', 'CONNECT']; // those of wx.request
const formType = 'application/x-www-form-urlencoded';

/** A query as onLoad gets it: not decoded. */
const queryOf = (query = '') => Object.fromEntries(query.split('&').filter(Boolean).map((pair) => {
  const at = pair.indexOf('=');
  return at < 0 ? [pair, ''] : [pair.slice(0, at), pair.slice(at + 1)];
}));

/** The body that wx.request makes of its data, and the query where there is no body. */
function encode(method, data, type) {
  if (data === undefined || typeof data === 'string') return { body: data };
  if (method === 'GET' || method === 'HEAD') return { query: new URLSearchParams(data).toString() };
  return { body: type.startsWith(formType) ? new URLSearchParams(data).toString() : JSON.stringify(data) };
}

export class MiniProgram {
  toasts = [];
  statuses = []; // [path, status] of each request that was answered
  online = true;
  #root;
  #app;
  #storage = new Map();
  #modules = new Map();
  #stack = [];
  #pending = new Set();

  /**
   * root is the folder of app.json. login() and scan() play WeChat: a js_code, and
   * what wx.scanCode answers. config changes what config.js exports. headers are
   * added to every request, as a network on the way does.
   */
  constructor(root, { login, scan, config = {}, headers = {} }) {
    this.#root = root;
    this.#app = JSON.parse(readFileSync(join(root, 'app.json'), 'utf8'));
    Object.assign(this, { login, scan, config, headers });
  }

  /** Starts it, or starts it anew: only what is stored stays. query is that of the link that opened it. */
  async launch(path = this.#app.pages[0], query = '') {
    this.#modules.clear();
    this.#stack = [];
    const registered = {};
    this.context = vm.createContext({
      wx: this.#wx, console, setTimeout, clearTimeout,
      getCurrentPages: () => [...this.#stack],
      App: (app) => { registered.app = app; },
      Page: (page) => { registered.page = page; },
    }, { codeGeneration: { strings: false, wasm: false } });
    this.#registered = registered;
    this.#load(join(this.#root, 'app.js'));
    this.#track(registered.app.onLaunch({ path, query: queryOf(query) }));
    this.#open(path, query);
    await this.settled();
  }

  #registered;

  #load(file) {
    if (!this.#modules.has(file)) {
      assert.ok(existsSync(file), `there is no ${file}`);
      const module = { exports: {} };
      this.#modules.set(file, module);
      const code = `(function (require, module, exports) {${readFileSync(file, 'utf8')}\n})`;
      vm.runInContext(code, this.context, { filename: file })((name) => this.#require(file, name), module, module.exports);
      if (file === join(this.#root, 'config.js')) Object.assign(module.exports, this.config);
    }
    return this.#modules.get(file).exports;
  }

  #require(from, name) {
    if (!name.startsWith('.')) return this.#load(join(this.#root, 'miniprogram_npm', name, 'index.js'));
    return this.#load(`${resolve(dirname(from), name).replace(/\.js$/, '')}.js`);
  }

  #track(work) {
    const promise = Promise.resolve(work);
    this.#pending.add(promise);
    promise.finally(() => this.#pending.delete(promise)).catch(() => {});
    return promise;
  }

  /** Waits until nothing that was begun is under way. */
  async settled() {
    while (this.#pending.size > 0) await Promise.all(this.#pending);
  }

  #open(path, query) {
    assert.ok(this.#app.pages.includes(path), `${path} is no page`);
    const file = join(this.#root, path);
    this.#modules.delete(`${file}.js`); // a page is made anew each time it is opened
    this.#load(`${file}.js`);
    const page = this.#registered.page;
    page.route = path;
    page.data = structuredClone(page.data);
    page.setData = (changes) => { page.data = { ...page.data, ...structuredClone(changes) }; };
    page.wxml = parseWXML(readFileSync(`${file}.wxml`, 'utf8'), `${path}.wxml`);
    this.#stack.push(page);
    this.#track((async () => {
      await Promise.all([page.onLoad?.(queryOf(query)), page.onShow?.()]);
    })());
  }

  #leave() {
    this.#track(this.#stack.pop().onUnload?.());
  }

  get page() {
    return this.#stack.at(-1);
  }

  /** What the page shows: its elements, by wxml.js. */
  get screen() {
    return render(this.page.wxml, this.page.data);
  }

  /** The texts that can be read. */
  get text() {
    return this.screen.text();
  }

  async #fire(node, event, detail) {
    assert.ok(node, `nothing takes ${event} at ${this.page.route}: ${this.text}`);
    const handler = this.page[node.attributes[`bind${event}`]];
    assert.equal(typeof handler, 'function', `${this.page.route} has no ${node.attributes[`bind${event}`]}`);
    const dataset = Object.fromEntries(Object.entries(node.attributes)
      .filter(([name]) => name.startsWith('data-')).map(([name, value]) => [name.slice(5), value]));
    await this.#track(handler.call(this.page, { type: event, currentTarget: { dataset }, detail }));
    await this.settled();
  }

  /** Taps the innermost element with this text that takes taps; a form's button sends what was typed, by name. */
  async tap(label, typed = {}) {
    const { screen } = this;
    const fits = ({ attributes }) => attributes.bindtap || attributes['form-type'] === 'submit';
    const node = screen.all((each) => fits(each) && each.text().includes(label)).at(-1);
    assert.ok(node, `there is no "${label}" to tap: ${screen.text()}`);
    assert.ok(!node.attributes.disabled, `"${label}" is disabled`);
    if (node.attributes.bindtap) return this.#fire(node, 'tap', {});
    const form = screen.all((each) => each.tag === 'form' && each.all((inner) => inner === node).length > 0).at(-1);
    const value = Object.fromEntries(form.all(({ tag }) => tag === 'input').map(({ attributes }) => [attributes.name, attributes.value ?? '']));
    for (const name of Object.keys(typed)) assert.ok(name in value, `the form has no ${name}`);
    return this.#fire(form, 'submit', { value: { ...value, ...typed } });
  }

  /** What a component of WeChat tells, such as chooseavatar. */
  tell(event, detail) {
    return this.#fire(this.screen.all(({ attributes }) => attributes[`bind${event}`])[0], event, detail);
  }

  async pullDown() {
    await this.page.onPullDownRefresh();
  }

  async back() {
    this.#leave();
    this.#track(this.page?.onShow?.());
    await this.settled();
  }

  /** Calls success or fail, later, as wx does. */
  #answer({ success, fail, complete }, work) {
    this.#track(work().then((result) => { success?.(result); complete?.(result); }, (reason) => { fail?.(reason); complete?.(reason); }));
  }

  async #request({ url, method = 'GET', header = {}, data }) {
    assert.ok(methods.includes(method), `wx.request knows no ${method}`);
    if (!this.online) throw { errMsg: 'request:fail ' };
    const headers = new Headers({ 'content-type': 'application/json', ...header, ...this.headers });
    const { body, query } = encode(method, data, headers.get('content-type'));
    const response = await fetch(query ? `${url}?${query}` : url, { method, headers, body }).catch((error) => {
      throw { errMsg: `request:fail ${error.cause?.code}` };
    });
    this.statuses.push([new URL(url).pathname, response.status]);
    const text = await response.text();
    let parsed = text;
    try {
      parsed = JSON.parse(text);
    } catch { /* as wx does */ }
    return { statusCode: response.status, header: Object.fromEntries(response.headers), data: parsed };
  }

  #wx = {
    login: (options) => this.#answer(options, async () => ({ code: await this.login(), errMsg: 'login:ok' })),
    request: (options) => this.#answer(options, () => this.#request(options)),
    getStorage: ({ key, ...options }) => this.#answer(options, async () => {
      if (!this.#storage.has(key)) throw { errMsg: 'getStorage:fail data not found' };
      return { data: this.#storage.get(key) };
    }),
    setStorage: ({ key, data, ...options }) => this.#answer(options, async () => { this.#storage.set(key, data); }),
    removeStorage: ({ key, ...options }) => this.#answer(options, async () => { this.#storage.delete(key); }),
    getStorageSync: (key) => this.#storage.get(key) ?? '',
    setStorageSync: (key, data) => { this.#storage.set(key, data); },
    getAccountInfoSync: () => ({ miniProgram: { envVersion: this.envVersion ?? 'develop' } }),
    getFileSystemManager: () => ({
      saveFile: ({ tempFilePath, ...options }) => this.#answer(options, async () => ({ savedFilePath: tempFilePath.replace('tmp', 'store') })),
    }),
    scanCode: (options) => this.#answer(options, () => this.scan()),
    navigateTo: ({ url }) => this.#open(...this.#target(url)),
    navigateBack: () => { this.#leave(); this.#track(this.page.onShow?.()); },
    reLaunch: ({ url }) => {
      while (this.#stack.length > 0) this.#leave();
      this.#open(...this.#target(url));
    },
    showToast: ({ title }) => { this.toasts.push(title); },
    stopPullDownRefresh() {},
  };

  #target(url) {
    const [path, query] = url.split('?');
    return [path.replace(/^\//, ''), query];
  }
}

// Starts the real program on free loopback ports and ends it by its own pid.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { migrate, storage } from './postgres.js';

export const root = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..');

// What `wxidp dev` and the configuration of startServe have in common.
export const appID = 'wx0123456789abcdef';
export const miniProgram = 'shop-mini';
export const appID2 = 'wxfedcba9876543210'; // of the same Open Platform account
export const miniProgram2 = 'shop-mini-2';
export const backend = 'orders-api';
export const audience = 'https://api.shop.example';

const startBudget = 30_000; // ms; a busy machine makes RSA keys slowly
const stopBudget = 30_000;

export async function binary() {
  const path = resolve(process.env.E2E_WXIDP_BIN ?? join(root, 'bin', 'wxidp'));
  try {
    await access(path);
  } catch {
    throw new Error(`there is no program at ${path}: run "go build -o bin/wxidp ./cmd/wxidp" first, or set E2E_WXIDP_BIN`);
  }
  return path;
}

/** Returns as many different free loopback ports as asked for. */
export async function freePorts(count) {
  const servers = [];
  for (let i = 0; i < count; i++) {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    servers.push(server);
  }
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((done) => server.close(done))));
  return ports;
}

/** The variables of this shell without WXIDP_ ones, which would be settings. */
const environment = () => Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('WXIDP_')));

/** One child process with what it wrote. */
export class Program {
  output = '';

  constructor(path, args, variables = {}) {
    this.child = spawn(path, args, { env: { ...environment(), ...variables }, stdio: ['ignore', 'pipe', 'pipe'] });
    this.exited = once(this.child, 'exit');
    this.exited.catch(() => {}); // a program that cannot be started is told by until()
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => { this.output += text; });
    }
    // Where this process ends early, its child does too.
    this.kill = () => this.child.kill('SIGKILL');
    process.once('exit', this.kill);
  }

  get running() {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Waits until ready() answers true. */
  async until(what, ready) {
    for (const deadline = Date.now() + startBudget; Date.now() < deadline; await sleep(50)) {
      if (!this.running) break;
      if (await ready().catch(() => false)) return;
    }
    throw new Error(`${this.child.spawnfile}: not ${what}; it wrote:\n${this.output}`);
  }

  async stop() {
    if (this.running) {
      this.child.kill('SIGTERM');
      const timer = setTimeout(this.kill, stopBudget);
      await this.exited;
      clearTimeout(timer);
    }
    process.off('exit', this.kill);
    if (this.child.exitCode !== 0) {
      throw new Error(`${this.child.spawnfile} ended with ${this.child.exitCode ?? this.child.signalCode}; it wrote:\n${this.output}`);
    }
  }
}

const answers = async (url) => (await fetch(url)).ok;

/** Returns a code that the simulated WeChat makes: at login or phone. */
async function code(simulator, path, parameters) {
  const response = await fetch(`${simulator}/control/${path}?format=text`, {
    method: 'POST', body: new URLSearchParams(parameters),
  });
  if (!response.ok) throw new Error(`simulator: ${response.status} ${await response.text()}`);
  return (await response.text()).trim();
}

/** What a test does to a running server and its WeChat. */
const handles = (simulator, config) => ({
  /** A js_code, as wx.login gives it to the mini-program of a user. */
  login: (user, appid = appID) => code(simulator, 'login', { appid, user }),
  /** A phone_code, as the phone number button gives it; phone is the user's number from now on. */
  tap: (user, { appid = appID, phone } = {}) => code(simulator, 'phone', { appid, user, ...(phone && { phone }) }),
  /** How many requests to one path reached WeChat. */
  async weChatRequests(path) {
    const response = await fetch(`${simulator}/control/requests?${new URLSearchParams({ path, format: 'text' })}`);
    return Number(await response.text());
  },
  /** Runs a command of wxidp about the running server and returns what it prints. */
  async command(args, input = '') {
    const running = promisify(execFile)(await binary(), [...args, '--config', config], { env: environment(), timeout: startBudget });
    running.child.stdin.on('error', () => {}); // it ended before it had read all
    running.child.stdin.end(input);
    return (await running).stdout;
  },
});

/** Writes tls.crt and tls.key for localhost. */
async function certify(dir) {
  await promisify(execFile)('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-days', '2',
    '-keyout', join(dir, 'tls.key'), '-out', join(dir, 'tls.crt')]);
  await chmod(join(dir, 'tls.key'), 0o600);
}

/** Starts `wxidp dev` in a new folder. */
export async function startDev() {
  const dir = await mkdtemp(join(tmpdir(), 'wxidp-e2e-'));
  const [port, admin, weChat] = await freePorts(3);
  const program = new Program(await binary(), ['dev', '--dir', join(dir, 'dev'),
    '--listen', `127.0.0.1:${port}`, '--admin-listen', `127.0.0.1:${admin}`, '--simulator-listen', `127.0.0.1:${weChat}`]);
  const issuer = `http://127.0.0.1:${port}`;
  const simulator = `http://127.0.0.1:${weChat}`;
  await program.until('ready', () => answers(`${issuer}/readyz`));
  return {
    dir: join(dir, 'dev'),
    issuer,
    simulator,
    backendSecret: (await readFile(join(dir, 'dev', 'secrets', backend), 'utf8')).trim(),
    ...handles(simulator, join(dir, 'dev', 'config.yaml')),
    output: () => program.output,
    async stop() {
      await program.stop();
      await rm(dir, { recursive: true });
    },
  };
}

/**
 * Starts `wxidp simulator` and `wxidp serve`. config is the YAML of clients and
 * whatever else is not default; files are written beside it, by name. With
 * https the issuer has a certificate of its own, which nobody trusts.
 */
export async function startServe({ config, files = {}, https = false }) {
  const dir = await mkdtemp(join(tmpdir(), 'wxidp-e2e-'));
  const [port, admin, weChat] = await freePorts(3);
  const issuer = https ? `https://localhost:${port}` : `http://127.0.0.1:${port}`;
  const simulator = `http://127.0.0.1:${weChat}`;
  const appSecret = randomBytes(24).toString('base64url');
  const write = async (name, content) => {
    await mkdir(dirname(join(dir, name)), { recursive: true, mode: 0o700 });
    await writeFile(join(dir, name), content, { mode: 0o600 });
  };
  await chmod(dir, 0o700);
  await write('data/master.key', `${randomBytes(32).toString('base64')}\n`);
  await write('secrets/wechat', appSecret);
  for (const [name, content] of Object.entries(files)) await write(name, content);
  if (https) await certify(dir);
  await write('config.yaml', `issuer: ${issuer}
listen: 127.0.0.1:${port}
${https ? 'tls: { cert_file: tls.crt, key_file: tls.key }' : ''}
admin: { listen: "127.0.0.1:${admin}" }
${await storage(write)}
wechat:
  base_url: ${simulator}
  apps:
    - { appid: ${appID}, secret_file: secrets/wechat }
${config}`);

  const path = await binary();
  await migrate(path, join(dir, 'config.yaml'));
  const weChatProgram = new Program(path, ['simulator', '--listen', `127.0.0.1:${weChat}`, '--app', `${appID}:${appSecret}`]);
  const program = new Program(path, ['serve', '--config', join(dir, 'config.yaml'), '--drain', '0s']);
  await weChatProgram.until('ready', () => answers(`${simulator}/control/`));
  await program.until('ready', () => answers(`http://127.0.0.1:${admin}/readyz`));
  return {
    dir,
    issuer,
    simulator,
    ...handles(simulator, join(dir, 'config.yaml')),
    output: () => program.output,
    async stop() {
      await program.stop();
      await weChatProgram.stop();
      await rm(dir, { recursive: true });
    },
  };
}

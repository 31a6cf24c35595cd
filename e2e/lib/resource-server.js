// Builds and runs the example resource servers, each by the tools of its own
// ecosystem, in a copy of its folder.

import { execFile } from 'node:child_process';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { freePorts, Program, root } from './server.js';

const buildBudget = 600_000; // ms; a first build fetches everything
const built = ['node_modules', 'target', '.venv', '__pycache__'];

/** This machine cannot build the example: a tool is missing, or nothing can be fetched. */
export class Unavailable extends Error {}

// What the tools say when there is nowhere to fetch from.
const offline = /^.*(no such host|dial tcp|ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|E40[34]|No matching distribution|ReadTimeout|could not be resolved|Could not transfer|Non-resolvable).*$/im;

async function run(dir, path, ...args) {
  try {
    await promisify(execFile)(path, args, { cwd: dir, timeout: buildBudget, maxBuffer: 64 << 20 });
  } catch (err) {
    const told = `${basename(path)} ${args.join(' ')}: ${err.message}\n${err.stdout}\n${err.stderr}`;
    const reason = offline.exec(told);
    throw reason ? new Unavailable(`its packages cannot be had: ${reason[0].trim()}`, { cause: told }) : new Error(told);
  }
}

/** Fails where a tool is missing. */
async function need(what, dir, path, ...args) {
  try {
    await run(dir, path, ...args);
  } catch (err) {
    throw new Unavailable(`there is no ${what}`, { cause: err });
  }
}

/** How each is built and started, and the signing algorithms it accepts. */
export const kinds = [
  {
    name: 'go',
    algorithms: ['ES256', 'RS256', 'EdDSA'],
    async build(dir) {
      await need('go', dir, 'go', 'version');
      await run(dir, 'go', 'vet', './...');
      await run(dir, 'go', 'build', '-o', 'orders', '.');
      return [join(dir, 'orders')];
    },
  },
  {
    name: 'node',
    algorithms: ['ES256', 'RS256', 'EdDSA'],
    async build(dir) {
      await need('npm', dir, 'npm', '--version');
      await run(dir, 'npm', 'ci', '--no-audit', '--no-fund', '--loglevel=error');
      return [process.execPath, join(dir, 'main.js')];
    },
  },
  {
    name: 'spring',
    algorithms: ['ES256', 'RS256'], // Nimbus takes no Ed25519 keys from a JWK Set
    async build(dir) {
      await need('javac', dir, 'javac', '-version');
      await need('mvn', dir, 'mvn', '-version');
      await run(dir, 'mvn', '-q', '-B', 'package');
      return ['java', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xmx256m', '-jar', join(dir, 'target', 'orders.jar')];
    },
  },
  {
    name: 'fastapi',
    algorithms: ['ES256', 'RS256', 'EdDSA'],
    async build(dir) {
      await need('python3 with venv and pip', dir, 'python3', '-m', 'venv', '.venv');
      await run(dir, join(dir, '.venv', 'bin', 'pip'), 'install', '-q', '--require-hashes', '-r', 'requirements.txt');
      return [join(dir, '.venv', 'bin', 'python'), join(dir, 'main.py')];
    },
  },
];

/** An example that is built, and the processes of it. */
export class Example {
  #processes = [];

  /** Throws Unavailable where this machine cannot. */
  static async build(kind) {
    const example = Object.assign(new Example(), kind);
    example.dir = await mkdtemp(join(tmpdir(), 'wxidp-e2e-'));
    await cp(join(root, 'examples', `resource-server-${kind.name}`), example.dir, {
      recursive: true, filter: (path) => !built.includes(basename(path)),
    });
    try {
      example.command = await kind.build(example.dir);
    } catch (err) {
      await example.stop();
      throw err;
    }
    return example;
  }

  /**
   * Starts a process of it and returns a function that sends GET requests to
   * it: with a token, or with headers.
   */
  async start(issuer, audience) {
    const [port] = await freePorts(1);
    const [path, ...args] = this.command;
    const program = new Program(path, args, { ISSUER: issuer, AUDIENCE: audience, PORT: String(port) });
    this.#processes.push(program);
    const get = (target, token, headers = token === undefined ? {} : { authorization: `Bearer ${token}` }) =>
      fetch(`http://127.0.0.1:${port}${target}`, { headers, redirect: 'manual', signal: AbortSignal.timeout(20_000) });
    await program.until('listening', async () => (await get('/me')).status === 401);
    return get;
  }

  async stop() {
    for (const program of this.#processes) {
      program.kill();
      await program.exited;
      process.off('exit', program.kill);
    }
    await rm(this.dir, { recursive: true, force: true });
  }
}

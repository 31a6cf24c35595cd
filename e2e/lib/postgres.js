// A PostgreSQL of its own, for E2E_STORAGE=postgres: it listens on a socket in a
// temporary folder and ends with this process.

import { execFile, spawn } from 'node:child_process';
import { chown, mkdtemp, readdir, realpath } from 'node:fs/promises';
import { existsSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
const nobody = 65534; // PostgreSQL refuses to be run by root

let cluster; // a promise of how databases are made

/** The YAML of a storage with a new database, or '' where the tests are to use the default. */
export async function storage(write) {
  if (process.env.E2E_STORAGE !== 'postgres') return '';
  cluster ??= start();
  await write('secrets/dsn', await (await cluster)());
  return 'storage: { driver: postgres, postgres: { dsn_file: secrets/dsn } }';
}

/** Prepares the database of a configuration that has one. */
export async function migrate(wxidp, config) {
  if (process.env.E2E_STORAGE === 'postgres') await run(wxidp, ['migrate', 'up', '--config', config]);
}

async function programs() {
  const found = [];
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(folder, 'initdb');
    if (existsSync(path)) found.push(dirname(await realpath(path)));
  }
  const packaged = '/usr/lib/postgresql'; // Debian keeps it out of PATH
  if (existsSync(packaged)) {
    for (const version of await readdir(packaged)) found.push(join(packaged, version, 'bin'));
  }
  const folder = found.find((path) => existsSync(join(path, 'createdb')));
  if (!folder) throw new Error('E2E_STORAGE=postgres needs PostgreSQL, which is not installed');
  return folder;
}

async function start() {
  const bin = await programs();
  const dir = await mkdtemp(join(tmpdir(), 'wxidp-e2e-pg-'));
  const owner = process.getuid() === 0 ? { uid: nobody, gid: nobody } : {};
  if (owner.uid) await chown(dir, nobody, nobody);
  const data = join(dir, 'data');
  await run(join(bin, 'initdb'), ['-D', data, '-U', 'wxidp', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'], { cwd: dir, ...owner });
  const settings = ['listen_addresses=', 'fsync=off', 'shared_buffers=32MB'].flatMap((setting) => ['-c', setting]);
  const server = spawn(join(bin, 'postgres'), ['-D', data, '-k', dir, ...settings], { cwd: dir, stdio: 'ignore', ...owner });
  process.once('exit', () => {
    server.kill('SIGQUIT'); // at once, with all its processes: nothing of it is kept
    rmSync(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  });
  server.unref();
  let count = 0;
  const create = async () => {
    const name = `wxidp_${count++}`;
    await run(join(bin, 'createdb'), ['-h', dir, '-U', 'wxidp', name]);
    return `host=${dir} user=wxidp dbname=${name} sslmode=disable`;
  };
  for (const deadline = Date.now() + 30_000; ; await sleep(50)) {
    try {
      await create();
      return create;
    } catch (error) {
      if (Date.now() > deadline || server.exitCode !== null) throw error;
    }
  }
}

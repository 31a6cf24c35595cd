// Runs the shell snippets of the documentation against a server of `wxidp dev`.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { blocks } from './docs.js';
import { binary } from './server.js';

/**
 * Runs the named blocks of a document as one script and returns the lines printed. edit
 * may fill in what a reader fills in.
 */
export async function shell(server, document, names, edit = (script) => script) {
  const script = [];
  for (const name of names) script.push(...await blocks(document, name));
  const { stdout } = await promisify(execFile)('/bin/sh', ['-e', '-c', edit(script.join('\n'))
    .replaceAll('http://127.0.0.1:8080', server.issuer)
    .replaceAll('http://127.0.0.1:8090', server.simulator)
    .replaceAll('bin/wxidp', await binary())
    .replaceAll('wxidp-dev/', `${server.dir}/`)], { timeout: 60_000 });
  return stdout.trim().split('\n');
}

// Reads the code blocks of the documentation that say they are checked:
// fences after a line <!-- checked: name -->.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { root } from './server.js';

/** Returns the text of all blocks of that name in a document, in order. */
export async function blocks(document, name) {
  const text = await readFile(join(root, document), 'utf8');
  const fence = new RegExp(`^<!-- checked: ${name} -->\\n\`\`\`\\w+\\n([^]*?)^\`\`\`$`, 'gm');
  const found = [...text.matchAll(fence)].map(([, code]) => code);
  if (found.length === 0) throw new Error(`${document} has no block "${name}"`);
  return found;
}

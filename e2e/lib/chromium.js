// Finds the browser of this machine, and starts it so that it reaches loopback
// only.

import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { chromium } from 'playwright-core';

const names = ['chromium', 'chromium-browser', 'google-chrome'];

/** Returns the path that CHROME names, or that of a browser on PATH; undefined: there is none. */
export function findChromium() {
  const candidates = process.env.CHROME ? [process.env.CHROME]
    : (process.env.PATH ?? '').split(delimiter).flatMap((folder) => names.map((name) => join(folder, name)));
  return candidates.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

export function launch(executablePath) {
  return chromium.launch({
    executablePath,
    timeout: 60_000,
    args: [
      '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost',
      '--force-color-profile=srgb',
      '--hide-scrollbars',
    ],
  });
}

// The pages in a real browser: every flow in every language, colour scheme and
// size, and what need be tried once only.

import { after, before, describe, test } from 'node:test';
import { findChromium } from '../lib/chromium.js';
import { looks } from '../lib/visit.js';
import { account, logout, logoutByClient } from './account.js';
import { device } from './device.js';
import { errors, hostCookies, language, plainCookies } from './pages.js';
import { again, formPost, keyboard, password, redirectAfterForm } from './password.js';
import { expired, farAway, landing, scanning, withoutScripts } from './scan.js';
import { World } from './world.js';

const limit = { timeout: 90_000 }; // of one test

const chromium = findChromium();
if (chromium) describe('in a browser', run);
else if (process.env.CI === 'true') test('chromium is installed', () => { throw new Error('it is not, so the browser tests cannot run'); });
else console.log('SKIPPED: chromium is missing, the browser tests did not run (CHROME names one)');

function run() {
  let world;
  before(async () => { world = await World.start(chromium); }, limit);
  after(() => world.stop(), limit);

  describe('every look', { concurrency: 2 }, () => {
    for (const [name, flow] of Object.entries({ password, scanning, expired, device, logout, account, errors, landing })) {
      for (const look of looks) test(`${name} ${look.name}`, limit, () => flow(world, look));
    }
  });
  describe('once', { concurrency: 2 }, () => {
    const [small, wide] = looks;
    for (const [name, flow] of Object.entries({
      again, redirectAfterForm, formPost, withoutScripts, farAway, logoutByClient, language, plainCookies, hostCookies,
    })) {
      test(name, limit, () => flow(world, wide));
    }
    for (const look of [small, wide]) test(`keyboard ${look.name}`, limit, () => keyboard(world, look));
  });
}

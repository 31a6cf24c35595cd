// A television without a browser, which somebody lets in with one.

import assert from 'node:assert/strict';
import * as client from 'openid-client';

const request = (world) => client.initiateDeviceAuthorization(world.tv, { scope: 'openid profile' });

/** Asks once for the tokens: the answer's error, or the tokens. */
async function poll(world, asked) {
  try {
    return await client.genericGrantRequest(world.tv, 'urn:ietf:params:oauth:grant-type:device_code', { device_code: asked.device_code });
  } catch (err) {
    if (err instanceof client.ResponseBodyError) return err;
    throw err;
  }
}

export async function device(world, look) {
  const person = await world.person('ming');
  const visit = await world.visit(look, person.ip);
  const { page } = visit;
  const [first, second] = [await request(world), await request(world)];

  await page.goto(first.verification_uri);
  await visit.see('user-code');
  await visit.check('device');
  await page.locator('#user-code').fill('BCDF-GHJK');
  await visit.press('device-next');
  await page.getByRole('alert').waitFor();
  assert.ok(visit.status >= 400 && visit.status < 500, `${visit.status}`);
  await visit.check('device-unknown-code', { status: visit.status });

  // Typed as people type: without the dash, in lower case.
  await page.locator('#user-code').fill(first.user_code.replace('-', '').toLowerCase());
  await visit.press('device-next');
  await visit.see('sign-in');
  await visit.signIn(person.username, world.password);
  await visit.see('allow');
  await visit.check('device-consent');
  await visit.press('allow');
  await visit.see('device-done');
  await visit.check('device-approved');
  const tokens = await poll(world, first);
  assert.deepEqual(tokens.claims?.().amr, ['pwd'], tokens.error);
  const info = await client.fetchUserInfo(world.tv, tokens.access_token, tokens.claims().sub);
  assert.equal(info.nickname, '小明');

  // Signed in already; the code is in the link.
  await page.goto(second.verification_uri_complete);
  assert.equal(await page.locator('#user-code').inputValue(), second.user_code);
  await visit.press('device-next');
  await visit.press('deny');
  await visit.see('device-done');
  await visit.check('device-denied');
  assert.equal((await poll(world, second)).error, 'access_denied');
  await visit.close();
}

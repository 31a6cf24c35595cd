// Signing in by scanning, with a simulated phone.

import assert from 'node:assert/strict';

const begin = async (world, visit, config) => {
  const begun = await world.authorize(visit, { scope: 'openid' }, config);
  await visit.see('scan-code');
  return begun;
};

const link = (visit) => visit.page.locator('#scan-link').getAttribute('href');

/** Waits until the page says how the code stands. */
const stands = (visit, state) => visit.page.locator(`#scan[data-state=${state}]`).waitFor();

/** Scans what the page shows, and returns what the phone needs to decide. */
async function scan(visit, phone) {
  const ticket = await link(visit);
  const asked = await phone.scan(ticket);
  return { ticket, asked, number: await visit.text('scan-number') };
}

export async function scanning(world, look) {
  const ip = world.address();
  const phone = await world.phone(`phone ${look.name}`, ip);
  const visit = await world.visit(look, ip);

  // Declined; then a new code.
  let begun = await begin(world, visit, world.own);
  assert.match(await visit.page.locator('#scan-code').getAttribute('src'), /^data:image\/svg\+xml/);
  const { ticket } = await scan(visit, phone);
  await stands(visit, 'scanned');
  await visit.check('scan-scanned');
  await phone.deny(ticket);
  await stands(visit, 'denied');
  await visit.check('scan-denied');
  await visit.press('scan-refresh');
  await stands(visit, 'waiting');
  assert.notEqual(await link(visit), ticket);

  // The page goes on by itself, and back to the application.
  const again = await scan(visit, phone);
  assert.equal(again.asked.client_name, '小店后台');
  assert.equal(again.asked.number_entry, false);
  assert.ok(again.asked.choices.includes(again.number), `${again.asked.choices} without ${again.number}`);
  await stands(visit, 'scanned');
  await phone.approve(again.ticket, again.number);
  const tokens = await world.tokens(visit, begun, world.own);
  assert.deepEqual(tokens.claims().amr, ['wechat', 'qr']);

  // Signed in, but the other client asks first.
  begun = await world.authorize(visit, { scope: 'openid profile' });
  await visit.see('allow');
  await visit.press('allow');
  assert.equal((await world.tokens(visit, begun)).claims().sub, tokens.claims().sub);
  await visit.close();
}

/** The page's own clock, put forward, expires a code that the server says nothing of. */
export async function expired(world, look) {
  const ip = world.address();
  const visit = await world.visit(look, ip);
  await visit.page.clock.install();
  await begin(world, visit, world.own);
  await visit.page.locator('#scan-left', { hasText: /^[12]:[0-5]\d$/ }).waitFor();
  const old = await link(visit);
  await visit.page.clock.fastForward(130_000);
  await stands(visit, 'expired');
  assert.equal(await visit.page.locator('#scan-countdown').isVisible(), false);
  await visit.check('scan-expired');
  await visit.press('scan-refresh');
  await stands(visit, 'waiting');
  assert.notEqual(await link(visit), old);
  await visit.close();
}

export async function withoutScripts(world, look) {
  const ip = world.address();
  const phone = await world.phone('phone without scripts', ip);
  const visit = await world.visit(look, ip, { javaScript: false });
  const begun = await begin(world, visit, world.own);
  await visit.press('scan-done'); // too early: the page stays
  await stands(visit, 'waiting');
  const { ticket, number } = await scan(visit, phone);
  await visit.press('scan-done');
  await stands(visit, 'scanned');
  await phone.approve(ticket, number);
  await visit.press('scan-done');
  assert.deepEqual((await world.tokens(visit, begun, world.own)).claims().amr, ['wechat', 'qr']);
  await visit.close();
}

/** A phone somewhere else gets no numbers to choose from; a wrong one ends it. */
export async function farAway(world, look) {
  const ip = world.address();
  const phone = await world.phone('phone far away', '198.51.100.7');
  const visit = await world.visit(look, ip);
  const begun = await begin(world, visit, world.own);
  const { ticket, asked, number } = await scan(visit, phone);
  assert.equal(asked.number_entry, true);
  assert.equal(asked.choices, undefined);
  assert.equal(asked.warning, 'other_network');
  await stands(visit, 'scanned');
  assert.equal(await phone.tryToApprove(ticket, number === '10' ? '11' : '10'), 409);
  await stands(visit, 'denied');
  await visit.press('scan-refresh');
  await stands(visit, 'waiting');
  const again = await scan(visit, phone);
  await phone.approve(again.ticket, again.number);
  assert.ok((await world.tokens(visit, begun, world.own)).claims().sub);
  await visit.close();
}

/** The link in a code, opened by something else than WeChat. */
export async function landing(world, look) {
  const ip = world.address();
  const visit = await world.visit(look, ip);
  await begin(world, visit, world.own);
  const ticket = await link(visit);
  await visit.close();
  const other = await world.visit(look, ip);
  await other.page.goto(ticket);
  await other.check('scan-landing');
  await other.close();
}

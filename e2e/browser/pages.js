// Errors, languages and cookies.

import assert from 'node:assert/strict';
import { appID, startServe } from '../lib/server.js';

export async function errors(world, look) {
  const ip = world.address();
  const visit = await world.visit(look, ip);
  await world.authorize(visit, { redirect_uri: 'https://evil.example/' });
  await visit.see('error');
  await visit.check('error', { status: 400 });
  assert.match(await visit.text('request-id'), /\S{8}/);
  assert.ok(visit.page.url().startsWith(world.issuer));

  await visit.page.goto(`${world.issuer}/signin/${'A'.repeat(43)}`);
  await visit.see('error');
  assert.equal(visit.status, 400);
  await visit.close();
}

/** The link to the other language works, and is remembered. */
export async function language(world, look) {
  const person = await world.person('hua');
  const visit = await world.visit(look, person.ip);
  const { page } = visit;
  const lang = () => page.locator('html').getAttribute('lang');
  await world.authorize(visit, {});
  assert.equal(await lang(), look.lang);
  const other = look.lang === 'en' ? 'zh-CN' : 'en';
  await visit.press('language');
  await page.locator(`html[lang=${other}]`).waitFor();
  await visit.signIn(person.username, world.password);
  await visit.see('allow');
  assert.equal(await lang(), other);
  await visit.press('language');
  await page.locator(`html[lang=${look.lang}]`).waitFor();
  await page.goto(`${world.issuer}/account`);
  await visit.see('account');
  assert.equal(await lang(), look.lang);

  // A client's wish comes before the browser's setting, and after the person's choice.
  await visit.context.clearCookies({ name: 'wxidp-language' });
  await world.authorize(visit, { ui_locales: other, prompt: 'login' });
  await visit.see('sign-in');
  assert.equal(await lang(), other);
  await visit.close();
}

const cookies = async (visit) => Object.fromEntries((await visit.context.cookies()).map(({ name, path, secure, httpOnly, sameSite }) =>
  [name, { path, secure, httpOnly, sameSite }]));

export async function plainCookies(world, look) {
  const person = await world.person('ming');
  const visit = await world.visit(look, person.ip);
  await visit.page.goto(`${world.issuer}/account?lang=en`);
  await visit.press('language');
  await visit.signIn(person.username, world.password);
  await visit.see('account');
  const kept = { path: '/', secure: false, httpOnly: true, sameSite: 'Lax' };
  assert.deepEqual(await cookies(visit), { 'wxidp-browser': kept, 'wxidp-language': kept, 'wxidp-login': kept });
  await visit.close();
}

/** With https, cookies have the prefix that keeps them to this very host. */
export async function hostCookies(world, look) {
  const server = await startServe({
    https: true,
    config: `clients:
  - { client_id: shop-mini, type: public, wechat_appid: ${appID}, grant_types: [wechat_jscode], scopes: [openid] }
`,
  });
  try {
    await server.command(['users', 'add', '--username', 'alice'], `${world.password}\n`);
    const visit = await world.visit(look, undefined, { hosts: [new URL(server.issuer).host] });
    await visit.page.goto(`${server.issuer}/account`);
    await visit.press('language');
    await visit.signIn('alice', world.password);
    await visit.see('account');
    const kept = { path: '/', secure: true, httpOnly: true, sameSite: 'Lax' };
    assert.deepEqual(await cookies(visit), { '__Host-wxidp-browser': kept, '__Host-wxidp-language': kept, '__Host-wxidp-login': kept });
    await visit.close();
  } finally {
    await server.stop();
  }
}

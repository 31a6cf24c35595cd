// Signing out, and the account page.

import assert from 'node:assert/strict';
import * as client from 'openid-client';

/** Signs a new browser in at the account page. */
async function signedIn(world, look, person) {
  const visit = await world.visit(look, person.ip);
  await visit.page.goto(`${world.issuer}/account`);
  await visit.see('sign-in');
  await visit.signIn(person.username, world.password);
  await visit.arrive(`${world.issuer}/account`);
  return visit;
}

/** What of the account is to be seen on a page. */
const shows = async (visit, person) => (await visit.page.content()).includes(person.username);

export async function logout(world, look) {
  const person = await world.person('ming');
  const visit = await signedIn(world, look, person);
  const { page } = visit;
  assert.ok(await shows(visit, person));

  // Nobody vouches for the request: the person is asked.
  await page.goto(`${world.issuer}/oauth2/end_session?client_id=shop-web`);
  await visit.see('sign-out');
  await visit.check('sign-out');
  await visit.press('stay');
  await visit.arrive(`${world.issuer}/account`);
  assert.ok(await shows(visit, person));
  await page.goto(`${world.issuer}/oauth2/end_session?client_id=shop-web`);
  await visit.press('sign-out');
  await visit.see('signed-out');
  await visit.check('signed-out');
  const names = (await visit.context.cookies()).map(({ name }) => name);
  assert.ok(!names.includes('wxidp-login'), names.join(' '));

  // What was seen before is not kept for who sits down next.
  for (let i = 0; i < 2; i++) {
    await page.goBack();
    assert.ok(!await shows(visit, person), page.url());
  }
  await page.goto(`${world.issuer}/account`);
  await visit.see('sign-in');
  await visit.close();
}

/** A client with an ID Token is believed. */
export async function logoutByClient(world, look) {
  const person = await world.person('hua');
  const visit = await world.visit(look, person.ip);
  const begun = await world.authorize(visit, { scope: 'openid' });
  await visit.see('sign-in');
  await visit.signIn(person.username, world.password);
  await visit.press('allow');
  const tokens = await world.tokens(visit, begun);
  await visit.page.goto(client.buildEndSessionUrl(world.web, {
    id_token_hint: tokens.id_token, post_logout_redirect_uri: world.app.home, state: 'left',
  }).href);
  assert.equal(await visit.arrive(world.app.home), `${world.app.home}?state=left`);
  await visit.page.goto(`${world.issuer}/account`);
  await visit.see('sign-in');
  await visit.close();
}

export async function account(world, look) {
  const person = await world.person('hua');
  const here = await signedIn(world, look, person);
  const there = await signedIn(world, look, person);
  const begun = await world.authorize(here, { scope: 'openid profile offline_access', prompt: 'consent' });
  await here.press('allow');
  await world.tokens(here, begun);

  await here.page.goto(`${world.issuer}/account`);
  await here.see('account');
  await here.check('account');
  assert.equal(await here.page.locator('#logins li').count(), 2);
  assert.equal(await here.page.locator('#sign-ins li').count(), 1);
  assert.equal(await here.page.locator('#consents > ul > li').count(), 1);

  // The other browser is signed out; this one is not.
  await here.page.locator('#logins > ul > li').filter({ hasNot: here.page.locator('.badge') }).getByRole('button').click();
  await here.page.locator('#logins > ul > li').nth(1).waitFor({ state: 'detached' });
  await there.page.reload();
  await there.see('sign-in');
  await there.close();

  await here.page.locator('#consents').getByRole('button').click();
  await here.page.locator('#consents > ul').waitFor({ state: 'detached' });
  await here.page.goto(`${world.issuer}/account`);
  await here.check('account-emptier');

  await here.press('sign-out-everywhere');
  await here.see('signed-out');
  await here.page.goBack();
  assert.ok(!await shows(here, person), here.page.url());
  await here.close();
}

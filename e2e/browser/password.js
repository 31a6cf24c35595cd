// Signing in by password, and what a client is allowed.

import assert from 'node:assert/strict';

export async function password(world, look) {
  const person = await world.person('ming');
  const visit = await world.visit(look, person.ip);
  const { page } = visit;

  let begun = await world.authorize(visit, { login_hint: person.username });
  await visit.see('sign-in');
  assert.equal(await page.locator('#username').inputValue(), person.username);
  assert.equal(await page.evaluate(() => document.activeElement.id), 'password');
  await visit.check('sign-in');

  await visit.signIn(person.username, 'wrong');
  await page.getByRole('alert').waitFor();
  assert.equal(await page.locator('#password').inputValue(), '');
  await visit.check('sign-in-wrong-password', { status: visit.status });
  assert.ok(visit.status >= 400 && visit.status < 500, `${visit.status}`);

  await visit.signIn(person.username, world.password);
  await visit.see('deny');
  assert.equal(await visit.text('account'), person.username);
  await visit.press('deny');
  assert.equal((await world.back(visit)).get('error'), 'access_denied');

  // The application is on another origin: with form-action 'self' the browser
  // would not follow there.
  begun = await world.authorize(visit, { scope: 'openid profile phone offline_access', prompt: 'consent' });
  await visit.see('allow');
  await visit.check('consent');
  await visit.press('allow');
  const claims = (await world.tokens(visit, begun)).claims();
  assert.deepEqual(claims.amr, ['pwd']);

  begun = await world.authorize(visit, { prompt: 'select_account' });
  await visit.see('continue');
  await visit.check('select-account');
  await visit.press('continue');
  assert.equal((await world.tokens(visit, begun)).claims().sub, claims.sub);
  await visit.close();
}

/** One sign-in serves other requests, and other clients, until the person wants to be somebody else. */
export async function again(world, look) {
  const [person, other] = [await world.person('ming'), await world.person('hua')];
  const visit = await world.visit(look, person.ip);
  let begun = await world.authorize(visit, { scope: 'openid' }, world.own);
  await visit.see('sign-in');
  await visit.signIn(person.username, world.password);
  const { sub } = (await world.tokens(visit, begun, world.own)).claims();
  begun = await world.authorize(visit, { scope: 'openid', prompt: 'none' }, world.own);
  assert.equal((await world.tokens(visit, begun, world.own)).claims().sub, sub);

  begun = await world.authorize(visit, { prompt: 'select_account', login_hint: person.username });
  await visit.press('switch');
  await visit.see('sign-in');
  assert.equal(await visit.page.locator('#username').inputValue(), '');
  await visit.signIn(other.username, world.password);
  await visit.see('allow');
  assert.equal(await visit.text('account'), other.username);
  await visit.press('allow');
  assert.notEqual((await world.tokens(visit, begun)).claims().sub, sub);

  await world.authorize(visit, { prompt: 'login' });
  await visit.press('cancel');
  assert.equal((await world.back(visit)).get('error'), 'access_denied');
  await visit.close();
}

/** A form whose answer redirects to another origin at once, with no page between. */
export async function redirectAfterForm(world, look) {
  const person = await world.person('ming');
  const visit = await world.visit(look, person.ip);
  const begun = await world.authorize(visit, { scope: 'openid' }, world.own);
  await visit.see('sign-in');
  await visit.signIn(person.username, world.password);
  const tokens = await world.tokens(visit, begun, world.own);
  assert.ok(tokens.claims().sub);
  await visit.close();
}

export async function formPost(world, look) {
  const person = await world.person('ming');
  const visit = await world.visit(look, person.ip);
  const begun = await world.authorize(visit, { scope: 'openid', response_mode: 'form_post' }, world.own);
  await visit.see('sign-in');
  await visit.signIn(person.username, world.password);
  await visit.arrive(world.app.callback);
  const brought = world.app.posted.findLast((request) => request.url === world.app.callback);
  assert.ok((await world.app.finish(world.own, begun, brought)).claims().sub);
  await visit.close();

  // Without scripts a button does it.
  const plain = await world.visit(look, person.ip, { javaScript: false });
  const again = await world.authorize(plain, { scope: 'openid', response_mode: 'form_post' }, world.own);
  await plain.signIn(person.username, world.password);
  await plain.page.locator('#form-post button').click();
  await plain.arrive(world.app.callback);
  assert.ok((await world.app.finish(world.own, again, world.app.posted.at(-1))).claims().sub);
  await plain.close();
}

/** Tab reaches everything that can be used, in the order of the page, and shows where it is. */
export async function keyboard(world, look) {
  const person = await world.person('ming');
  const visit = await world.visit(look, person.ip);
  const { page } = visit;
  const begun = await world.authorize(visit, { scope: 'openid' }, world.own);
  await visit.see('sign-in');
  const wanted = await page.evaluate(() => [...document.querySelectorAll('a[href], button, input:not([type=hidden])')]
    .filter((element) => element.checkVisibility()).map((element) => element.id));
  assert.ok(wanted.includes('password') && wanted.includes('scan-refresh') && wanted.includes('language'), wanted.join(' '));

  const reached = [];
  for (let i = 0; i <= wanted.length; i++) { // once it leaves the page's end
    await page.keyboard.press('Tab');
    const at = await page.evaluate(() => {
      const element = document.activeElement;
      const style = getComputedStyle(element);
      const box = element.getBoundingClientRect();
      const on = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
      return { id: element.id, outline: style.outlineStyle, width: parseFloat(style.outlineWidth), covered: !element.contains(on) };
    });
    if (!at.id) continue;
    assert.ok(at.outline !== 'none' && at.width >= 2, `the focus on #${at.id} is not to be seen`);
    assert.ok(!at.covered, `#${at.id} is covered`);
    reached.push(at.id);
  }
  const start = reached.indexOf(wanted[0]);
  assert.deepEqual([...reached.slice(start), ...reached.slice(0, start)], wanted);
  await page.screenshot({ path: visit.picture('keyboard'), caret: 'initial' });

  await page.locator('#username').focus();
  await page.keyboard.type(person.username);
  await page.keyboard.press('Tab');
  await page.keyboard.type(world.password);
  await page.keyboard.press('Enter');
  assert.ok((await world.tokens(visit, begun, world.own)).claims().sub);
  await visit.close();
}

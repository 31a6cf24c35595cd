// As much of WXML as a small mini-program uses: elements, wx:if, wx:for and
// expressions in double braces.

import { strict as assert } from 'node:assert';

const tag = /<(\/?)([a-z-]+)((?:\s+[\w:*-]+(?:="[^"]*")?)*)\s*(\/?)>/g;
const components = ['view', 'text', 'image', 'button', 'form', 'input', 'block'];

class Node {
  constructor(name, attributes = {}, children = []) {
    Object.assign(this, { tag: name, attributes, children });
  }

  /** What can be read in it. */
  text() {
    return this.children.map((child) => (child instanceof Node ? child.text() : child.trim())).filter(Boolean).join(' ');
  }

  /** Every element that fits, the inner ones behind those around them. */
  all(fits) {
    const found = fits(this) ? [this] : [];
    for (const child of this.children) if (child instanceof Node) found.push(...child.all(fits));
    return found;
  }
}

/** Returns the tree of a document. It throws where a tag is not closed or is no component. */
export function parseWXML(source, name) {
  const root = new Node('page');
  const open = [root];
  let end = 0;
  for (const match of source.matchAll(tag)) {
    const [whole, closing, kind, attributes, empty] = match;
    assert.ok(components.includes(kind), `${name}: <${kind}>`);
    open.at(-1).children.push(source.slice(end, match.index));
    end = match.index + whole.length;
    if (closing) {
      assert.equal(open.pop().tag, kind, `${name}: </${kind}>`);
      continue;
    }
    const node = new Node(kind, Object.fromEntries([...attributes.matchAll(/([\w:*-]+)(?:="([^"]*)")?/g)].map(([, key, value = '']) => [key, value])));
    open.at(-1).children.push(node);
    if (!empty) open.push(node);
  }
  assert.deepEqual(open, [root], `${name}: something is not closed`);
  assert.doesNotMatch(source.slice(end), /</, `${name}: what is this?`);
  return root;
}

/** An expression's value. WXML takes what is not there for undefined; a name that the page does not have is a fault here. */
function evaluate(expression, data) {
  const names = new Set(Object.keys(data));
  const scope = new Proxy(data, {
    has: (_, name) => {
      assert.ok(typeof name === 'symbol' || names.has(name), `{{${expression}}}: the page has no ${String(name)}`);
      return true;
    },
    get: (target, name) => (name === Symbol.unscopables ? undefined : target[name] ?? undefined),
  });
  try {
    return new Function('scope', `with (scope) return (${expression.replace(/(\w)\.(?=[a-zA-Z])/g, '$1?.')})`)(scope);
  } catch (cause) {
    throw new Error(`{{${expression}}}`, { cause });
  }
}

function fill(text, data) {
  const whole = /^\{\{([^}]*)\}\}$/.exec(text);
  if (whole) return evaluate(whole[1], data);
  return text.replace(/\{\{([^}]*)\}\}/g, (_, expression) => evaluate(expression, data) ?? '');
}

function renderAll(children, data) {
  const shown = [];
  let chosen = true; // whether a branch of the wx:if before was shown
  for (const child of children) {
    if (typeof child === 'string') {
      const text = String(fill(child, data) ?? '');
      if (text.trim()) shown.push(text);
      continue;
    }
    const { 'wx:if': when, 'wx:elif': otherwise, 'wx:for': list, ...rest } = child.attributes;
    if (when !== undefined) chosen = Boolean(fill(when, data));
    else if (otherwise !== undefined || 'wx:else' in rest) {
      if (chosen) continue;
      chosen = otherwise === undefined || Boolean(fill(otherwise, data));
    } else chosen = true;
    if (!chosen) continue;
    const scopes = list === undefined ? [data] : fill(list, data).map((item, index) => ({ ...data, item, index }));
    for (const scope of scopes) {
      const attributes = Object.fromEntries(Object.entries(rest).map(([name, value]) => [name, fill(value, scope)]));
      const inner = renderAll(child.children, scope);
      if (child.tag === 'block') shown.push(...inner);
      else shown.push(new Node(child.tag, attributes, inner));
    }
  }
  return shown;
}

/** Returns what a document shows of a page's data. */
export function render(root, data) {
  return new Node('page', {}, renderAll(root.children, data));
}

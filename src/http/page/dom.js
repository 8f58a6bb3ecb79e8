// Builds and updates elements.
//
// Text from services is untrusted. It becomes text nodes only: no file of the page parses text as HTML, and the
// Content Security Policy would prevent it.

/** An element. A child is a node, a text or nothing; an attribute that is `null` or `false` is left out. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  const shown = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  return shown.map((child) => (typeof child === "string" ? printable(child) : child));
}

/** Control characters, bidirectional controls, line separators and byte-order marks. */
const UNPRINTABLE = /[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** Text with escapes for characters that would hide or reorder what is around them. */
function printable(text) {
  return text.replace(UNPRINTABLE, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
}

/** A message of the agent: text between backticks becomes `<code>` elements. A backtick without a partner stays. */
export function message(text) {
  const pieces = text.split("`");
  if (pieces.length % 2 === 0) pieces.splice(-2, 2, pieces.slice(-2).join("`"));
  return pieces.map((piece, at) => (at % 2 === 1 ? el("code", {}, piece) : piece)).filter((piece) => piece !== "");
}

/**
 * Makes `old` equal to `fresh` by changing only what differs, so that focus, selection and scroll positions stay.
 * A `<details>` keeps the state its reader gave it until `data-open`, the page's own choice, changes.
 */
export function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return fresh;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return old;
  }
  const choice = old.getAttribute("data-open");
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.getAttribute("data-open") !== choice) old.open = fresh.open;
  const [present, wanted] = [[...old.childNodes], [...fresh.childNodes]];
  for (const [at, child] of wanted.entries()) {
    if (at < present.length) morph(present[at], child);
    else old.append(child);
  }
  for (const child of present.slice(wanted.length)) child.remove();
  return old;
}

/** Replaces the children of `parent` by [`morph`]. */
export function show(parent, ...children) {
  const fresh = parent.cloneNode(false);
  fresh.append(...nodes(children));
  morph(parent, fresh);
}

/** A section of names and values, `[name, value]` each; others are left out. */
export function facts(title, pairs) {
  const items = pairs.filter(Boolean).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  return el("section", {}, el("h2", {}, title), el("dl", {}, items));
}

/** A table with a name for screen readers. `columns` are texts, or `[text, class]`. */
export function table(name, kind, columns) {
  const heads = columns.map((column) => [column].flat());
  const row = heads.map(([text, kind]) => el("th", { scope: "col", role: "columnheader", class: kind ?? null }, text));
  // Explicit roles: a table that is laid out as blocks or grids loses the implicit ones.
  const head = el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, row));
  return el("table", { role: "table", class: kind, "aria-label": name }, head);
}

/** A cell. Narrow screens have no column heads and show `label` instead. */
export function cell(kind, label, ...children) {
  return el("td", { role: "cell", class: kind, "data-label": label }, ...children);
}

/** The head of a row: a name that links to `href`. */
export function rowHead(name, href, ...more) {
  return el("th", { role: "rowheader", scope: "row", class: "name" }, el("a", { class: "row", href }, name), ...more);
}

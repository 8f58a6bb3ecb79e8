// Elements, built and brought up to date.
//
// What services say is somebody else's text: it becomes text nodes and nothing else. Nothing here, and nothing in the other
// files, reads text as HTML; the page's policy would stop it.

/** An element. A child is a node, a text or nothing; an attribute that is `null` or `false` is left out. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/**
 * Makes `old` look like `fresh` by changing what differs, so that focus, selection and scroll positions stay.
 * A `<details>` keeps what its reader did to it until `data-open`, what we think of it, changes.
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
  const thought = old.getAttribute("data-open");
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.getAttribute("data-open") !== thought) old.open = fresh.open;
  const [had, has] = [[...old.childNodes], [...fresh.childNodes]];
  has.forEach((child, at) => (at < had.length ? morph(had[at], child) : old.append(child)));
  had.slice(has.length).forEach((child) => child.remove());
  return old;
}

/** Puts these children into `parent` by [`morph`]: where a view has no list. */
export function show(parent, ...children) {
  const fresh = parent.cloneNode(false);
  fresh.append(...children.flat(Infinity).filter(Boolean));
  morph(parent, fresh);
}

/** A list of items that come again and again, a little different: rows are kept, and only those that differ are touched. */
export class Rows {
  #parent;
  #head;
  #key;
  #build;
  #kept = new Map();

  /** `key` names an item among the others; `build` makes its row; rows come after `head`, if there is one. */
  constructor(parent, key, build, head = null) {
    this.#parent = parent;
    this.#head = head;
    this.#key = key;
    this.#build = build;
  }

  /** Shows these items in this order, and returns those that were there before and have changed. */
  update(items) {
    const first = this.#kept.size === 0;
    const changed = [];
    const kept = new Map();
    for (const item of items) {
      const key = this.#key(item);
      if (kept.has(key)) continue;
      const text = JSON.stringify(item);
      const before = this.#kept.get(key);
      this.#kept.delete(key);
      let row = before?.row;
      if (!before) {
        row = this.#build(item);
        if (!first) flash(row);
      } else if (before.text !== text) {
        row = morph(row, this.#build(item));
        flash(row);
        changed.push({ item, before: before.item });
      }
      kept.set(key, { row, text, item });
    }
    this.#kept.forEach(({ row }) => row.remove());
    this.#kept = kept;
    let at = this.#head ? this.#head.nextSibling : this.#parent.firstChild;
    for (const { row } of kept.values()) {
      if (row === at) at = at.nextSibling;
      else this.#parent.insertBefore(row, at);
    }
    return changed;
  }

  /** Shows the rows whose item passes, hides the others, and returns how many are shown. */
  filter(passes) {
    let shown = 0;
    for (const { row, item } of this.#kept.values()) {
      const passed = passes(item);
      if (row.hidden === passed) row.hidden = !passed;
      if (passed) shown += 1;
    }
    return shown;
  }
}

/** Draws the eye to what has just changed, of those who do not mind. */
function flash(row) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  row.animate({ backgroundColor: ["var(--flash)", "transparent"] }, { duration: 1500 });
}

/** A table with a name for screen readers. `columns` are texts, or `[text, class]`. */
export function table(name, columns) {
  const heads = columns.map((column) => [column].flat());
  const row = heads.map(([text, kind]) => el("th", { scope: "col", role: "columnheader", class: kind ?? null }, text));
  // The roles are said, since narrow screens lay rows out as blocks.
  const head = el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, row));
  return el("table", { role: "table", "aria-label": name }, head);
}

/** A cell; what a narrow screen needs to tell it from others stands in `label`. */
export function cell(kind, label, ...children) {
  return el("td", { role: "cell", class: kind, "data-label": label }, ...children);
}

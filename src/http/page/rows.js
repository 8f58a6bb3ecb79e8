// A list whose rows are kept from one state to the next. Only rows whose item changed are touched.

import { morph } from "./dom.js";

export class Rows {
  #parent;
  #before;
  #key;
  #build;
  #kept = new Map();

  /** `key` identifies an item; `build` makes its row; rows follow the element `before`, if there is one. */
  constructor(parent, key, build, before = null) {
    this.#parent = parent;
    this.#before = before;
    this.#key = key;
    this.#build = build;
  }

  /**
   * Shows these items in this order, and returns those that were present before and have changed. Their rows are highlighted
   * unless the update `isQuiet`.
   */
  update(items, isQuiet = false) {
    const isFirst = this.#kept.size === 0;
    const changed = [];
    const kept = new Map();
    for (const item of items) {
      const key = this.#key(item);
      if (kept.has(key)) continue;
      const text = JSON.stringify(item);
      const previous = this.#kept.get(key);
      this.#kept.delete(key);
      let row = previous?.row;
      if (!previous) {
        row = this.#build(item);
        if (!isFirst && !isQuiet) flash(row);
      } else if (previous.text !== text) {
        row = morph(row, this.#build(item));
        if (!isQuiet) flash(row);
        changed.push({ item, before: previous.item });
      }
      kept.set(key, { row, text, item });
    }
    for (const { row } of this.#kept.values()) row.remove();
    this.#kept = kept;
    this.#place();
    return changed;
  }

  /** Moves the rows to their places. One row that moves down is one move, not a move of all rows that it passes. */
  #place() {
    const focused = document.activeElement;
    let at = this.#before ? this.#before.nextSibling : this.#parent.firstChild;
    for (const { row } of this.#kept.values()) {
      if (row !== at && at?.nextSibling === row) {
        at.remove();
        at = row;
      }
      if (row === at) at = at.nextSibling;
      else this.#parent.insertBefore(row, at);
    }
    // A row that moves loses the focus.
    if (focused !== document.activeElement && this.#parent.contains(focused)) focused.focus({ preventScroll: true });
  }

  /** Shows the rows whose item matches, hides the others, and returns the number shown. */
  filter(matches) {
    let shown = 0;
    for (const { row, item } of this.#kept.values()) {
      const isShown = matches(item);
      if (row.hidden === isShown) row.hidden = !isShown;
      if (isShown) shown += 1;
    }
    return shown;
  }
}

/** Highlights a row that has just changed, unless the reader prefers reduced motion. */
function flash(row) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  row.animate({ backgroundColor: ["var(--flash)", "transparent"] }, { duration: 1500 });
}

// A list of which only the first items are shown, with a button for more: thousands of rows cost a browser seconds.

import { el, show } from "./dom.js";
import { count } from "./format.js";
import { Rows } from "./rows.js";

/** Number of rows at first, and more with each press of the button. */
const STEP = 200;

export class Pages {
  /** Number of the rows that are not shown, and the button: to be placed below the list. */
  below = el("div", { class: "below", role: "status" });
  #rows;
  #noun;
  #items = [];
  #matching = [];
  #limit = STEP;
  #isQuiet = true;

  /** `key` identifies an item, `build` makes its row, and `noun` names it. */
  constructor(parent, key, build, noun) {
    this.#rows = new Rows(parent, key, build);
    this.#noun = noun;
    this.below.addEventListener("click", (event) => {
      if (event.target.tagName !== "BUTTON") return;
      const next = this.#limit;
      this.#limit += STEP;
      this.#draw(true);
      [...parent.children][next]?.querySelector("a")?.focus();
    });
  }

  /** Takes the items; the filter shows them. Rows that change are highlighted unless the update `isQuiet`. */
  update(items, isQuiet = false) {
    this.#items = items;
    this.#isQuiet = isQuiet;
  }

  /** Shows the first rows whose item matches, and returns the number that match. */
  filter(matches) {
    this.#matching = this.#items.filter(matches);
    this.#draw(this.#isQuiet);
    this.#isQuiet = true;
    return this.#matching.length;
  }

  #draw(isQuiet) {
    const [all, limit] = [this.#matching.length, this.#limit];
    this.#rows.update(this.#matching.slice(0, limit), isQuiet);
    const more = Math.min(STEP, all - limit);
    show(
      this.below,
      all > limit && [
        el("span", {}, `The first ${limit} of ${count(all, this.#noun)} are shown. `),
        el("button", { type: "button" }, `Show ${more} more`),
      ],
    );
  }
}

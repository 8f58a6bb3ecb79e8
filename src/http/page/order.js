// The order of a list: problems first, the most severe first, then by name.
//
// Rows keep their places while the reader uses the pointer or the keyboard, so that no row moves away from under a click.
// The list is sorted again once the reader is idle.

/** Milliseconds without input after which rows may move. */
const IDLE = 10_000;
const INPUT = ["pointermove", "pointerdown", "touchmove", "wheel", "scroll", "keydown"];

const byName = new Intl.Collator("en", { numeric: true }).compare;
let lastInput = Number.NEGATIVE_INFINITY;

for (const kind of INPUT) {
  addEventListener(kind, () => (lastInput = performance.now()), { capture: true, passive: true });
}

export class Order {
  #name;
  #severity;
  #onIdle;
  /** The position of each name in the order that is shown. */
  #positions = new Map();
  #timer = 0;

  /** `severity` is 0 for the most severe state; `onIdle` is called when a list that kept its order may be sorted. */
  constructor(name, severity, onIdle) {
    this.#name = name;
    this.#severity = severity;
    this.#onIdle = onIdle;
  }

  /** Returns the items in the order to show. */
  sort(items) {
    clearTimeout(this.#timer);
    const keyed = items.map((item) => ({ item, name: this.#name(item), severity: this.#severity(item) }));
    keyed.sort((a, b) => a.severity - b.severity || byName(a.name, b.name));
    const idleIn = lastInput + IDLE - performance.now();
    if (this.#positions.size > 0 && idleIn > 0) {
      const position = ({ name }) => this.#positions.get(name) ?? Number.MAX_SAFE_INTEGER;
      const isKept = keyed.every((entry, at) => at === 0 || position(keyed[at - 1]) <= position(entry));
      if (!isKept) this.#timer = setTimeout(this.#onIdle, idleIn);
      keyed.sort((a, b) => position(a) - position(b));
    }
    this.#positions = new Map(keyed.map(({ name }, at) => [name, at]));
    return keyed.map(({ item }) => item);
  }

  /** Stops waiting for the reader to be idle. */
  stop() {
    clearTimeout(this.#timer);
  }
}

// Announces changes to screen readers through an `aria-live` region: few words, at a limited rate.

/** Milliseconds from the first change to the announcement that contains it. */
const DELAY = 4000;
/** More changes than this are announced as a number. */
const MAX_SPELLED_OUT = 3;

let pending = [];
let timer = 0;

/** Announces these changes, together with the others of the next seconds. */
export function announce(changes) {
  pending.push(...changes);
  if (pending.length > 0 && timer === 0) timer = setTimeout(flush, DELAY);
}

function flush() {
  const text = pending.length > MAX_SPELLED_OUT ? `${pending.length} changes` : pending.join("; ");
  document.getElementById("announcements").textContent = text;
  pending = [];
  timer = 0;
}

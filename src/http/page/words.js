// Words and signs for states, and times as people say them. A state is never told by its colour alone.

import { el } from "./dom.js";

/** Tones: what a state means to the one who looks. */
const SIGNS = { good: "✓", fair: "!", bad: "✕", held: "–" };

const INSTANCE = {
  passing: "good",
  warming: "fair",
  warning: "fair",
  stale: "fair",
  suspect: "fair",
  critical: "bad",
  gone: "bad",
  flapping: "bad",
};

const REACH = { alive: "good", suspect: "fair", held: "fair", left: "held", gone: "bad" };

/** A sign with a word, in a tone. */
export function mark(tone, word) {
  return el("span", { class: `mark ${tone}` }, el("span", { class: "sign", "aria-hidden": "true" }, SIGNS[tone]), word);
}

/** The tone of an instance's state: what somebody holds back on purpose is no fault. */
export function toneOfState(state) {
  return INSTANCE[state] ?? "held";
}

/** The tone of a check. */
export function toneOfCheck(status) {
  return INSTANCE[status] ?? "bad";
}

/** The tone of a node. */
export function toneOfReach(reach) {
  return REACH[reach] ?? "bad";
}

/** How a service stands as a whole: its tone, a word, and what is amiss. */
export function standing(summary) {
  const { Answered: answered = 0, States: states = {} } = summary.Muster ?? {};
  const amiss = Object.entries(states).filter(([state]) => state !== "passing");
  const detail = amiss.map(([state, count]) => `${count} ${state}`).join(", ");
  const onPurpose = amiss.every(([state]) => !INSTANCE[state]);
  if (answered === summary.InstanceCount) {
    return detail ? { tone: "fair", word: "answered", detail } : { tone: "good", word: "answered", detail };
  }
  if (answered > 0) return { tone: "fair", word: "in part", detail };
  return onPurpose ? { tone: "held", word: "held back", detail } : { tone: "bad", word: "not answered", detail };
}

/** The agent's clock less ours, in milliseconds: ages are told by the agent's. */
let ahead = 0;

/** Takes the header `Date` of an answer. */
export function setClock(date) {
  const theirs = Date.parse(date ?? "");
  // Its seconds are whole, so that less than one is no difference.
  if (theirs) ahead = Math.abs(theirs - Date.now()) > 1500 ? theirs - Date.now() : 0;
}

/** How long ago, in the two largest units: `3m 12s`. */
export function age(time) {
  let left = Math.max(0, Math.floor((Date.now() + ahead - Date.parse(time)) / 1000));
  const parts = [];
  for (const [unit, seconds] of [
    ["d", 86400],
    ["h", 3600],
    ["m", 60],
    ["s", 1],
  ]) {
    const count = Math.floor(left / seconds);
    left -= count * seconds;
    if (count > 0 || parts.length > 0 || unit === "s") parts.push(`${count}${unit}`);
  }
  return parts.slice(0, 2).join(" ");
}

/** A time since when something is so; [`tick`] keeps it right. Empty where nobody told. */
export function since(time) {
  if (!Date.parse(time)) return "";
  return el("time", { datetime: time, "data-age": true, title: local(time) }, age(time));
}

/** When something happened, by the reader's clock. */
export function clock(time) {
  const date = new Date(time);
  const today = date.toDateString() === new Date().toDateString();
  const shown = today ? date.toLocaleTimeString(undefined, { hour12: false }) : local(time);
  return el("time", { datetime: time, title: local(time) }, shown);
}

function local(time) {
  return new Date(time).toLocaleString(undefined, { hour12: false });
}

/** Ages grow. */
export function tick() {
  for (const element of document.querySelectorAll("time[data-age]")) {
    const text = age(element.dateTime);
    if (element.textContent !== text) element.textContent = text;
  }
}

/** `1 node`, `2 nodes`. */
export function count(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

/** An address with its port. */
export function endpoint(address, port) {
  if (!port) return address;
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Small words in a row; of many, the first ones and how many more. */
export function chips(words, most = 6) {
  const shown = words.slice(0, most).map((word) => el("span", { class: "chip" }, word));
  const rest = words.length - shown.length;
  return rest > 0 ? [...shown, el("span", { class: "more", title: words.slice(most).join(", ") }, `+${rest}`)] : shown;
}

// Formats states, times and addresses. A state has a sign and a word besides its colour.

import { el } from "./dom.js";

/** Signs of the tones, by severity. */
const SIGNS = { ok: "✓", warning: "!", critical: "✕", neutral: "–" };

/** Tones of instances and checks. A state that is not listed is intended, such as `draining`. */
const INSTANCE = {
  passing: "ok",
  warming: "warning",
  warning: "warning",
  stale: "warning",
  suspect: "warning",
  critical: "critical",
  gone: "critical",
  flapping: "critical",
  unresolved: "critical",
};

/** Tones of nodes by reachability. */
const NODE = { alive: "ok", suspect: "warning", held: "warning", restarting: "warning", left: "neutral", gone: "critical" };

/** Tones from the most to the least severe. */
const SEVERITY = ["critical", "warning", "neutral", "ok"];

/** A sign and a word in a tone. */
export function mark(tone, word) {
  return el("span", { class: `mark ${tone}` }, el("span", { class: "sign", "aria-hidden": "true" }, SIGNS[tone]), word);
}

/** The tone of an instance's state. */
export function toneOfInstance(state) {
  return INSTANCE[state] ?? "neutral";
}

/** The tone of a check's status. */
export function toneOfCheck(status) {
  return INSTANCE[status] ?? "critical";
}

/** The tone of a node's reachability. */
export function toneOfNode(reach) {
  return NODE[reach] ?? "critical";
}

/** 0 for the most severe tone. */
export function severity(tone) {
  return SEVERITY.indexOf(tone);
}

/** Whether a tone stands for a fault. */
export function isProblem(tone) {
  return tone === "critical" || tone === "warning";
}

/** The health of a service: its tone, a word, and its instances that do not pass. A held instance is no fault. */
export function health(summary) {
  const { Answered: answered = 0, States: states = {} } = summary.Muster ?? {};
  const others = Object.entries(states).filter(([state]) => state !== "passing");
  const detail = others.map(([state, number]) => `${number} ${state}`).join(", ");
  if (others.length === 0 && answered === summary.InstanceCount) return { tone: "ok", word: "healthy", detail };
  const isIntended = others.length > 0 && others.every(([state]) => !INSTANCE[state]);
  if (isIntended) return { tone: "neutral", word: answered > 0 ? "partly held" : "held", detail };
  return answered > 0 ? { tone: "warning", word: "degraded", detail } : { tone: "critical", word: "down", detail };
}

/** The agent's clock minus the browser's, in milliseconds. Ages are computed by the agent's clock. */
let clockOffset = 0;

/** Takes the agent's clock from the header `Date` of a response. */
export function setClock(date) {
  const agent = Date.parse(date ?? "");
  // The header has whole seconds: a smaller difference is no difference.
  if (agent) clockOffset = Math.abs(agent - Date.now()) > 1500 ? agent - Date.now() : 0;
}

/** The time passed since then, in the two largest units: `3m 12s`. */
export function age(time) {
  return duration(Math.max(0, Math.floor((Date.now() + clockOffset - Date.parse(time)) / 1000)));
}

/** A number of seconds in the two largest units. */
export function duration(seconds) {
  let left = seconds;
  const parts = [];
  for (const [unit, length] of [
    ["d", 86400],
    ["h", 3600],
    ["m", 60],
    ["s", 1],
  ]) {
    const number = Math.floor(left / length);
    left -= number * length;
    if (number > 0 || parts.length > 0 || unit === "s") parts.push(`${number}${unit}`);
  }
  return parts.slice(0, 2).join(" ");
}

/** The age of a state, which [`tick`] keeps current. Empty if the time is not known. */
export function since(time) {
  if (!Date.parse(time)) return "";
  return el("time", { datetime: time, "data-age": true, title: local(time) }, age(time));
}

/** The time of an event by the reader's clock, with the day unless it is today. */
export function clock(time) {
  const date = new Date(time);
  const hours = date.toLocaleTimeString(undefined, { hour12: false });
  const isToday = date.toDateString() === new Date().toDateString();
  const day = isToday ? "" : `${date.toLocaleDateString(undefined, { month: "short", day: "numeric" })}, `;
  return el("time", { datetime: time, title: local(time) }, `${day}${hours}`);
}

function local(time) {
  return new Date(time).toLocaleString(undefined, { hour12: false });
}

/** Updates the ages that are shown. */
export function tick() {
  for (const element of document.querySelectorAll("time[data-age]")) {
    const text = age(element.dateTime);
    if (element.textContent !== text) element.textContent = text;
  }
}

/** `1 node`, `2 nodes`. */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** A number of octets with a unit. */
export function size(octets) {
  const units = ["octets", "KiB", "MiB", "GiB"];
  const power = Math.min(3, Math.floor(Math.log2(Math.max(1, octets)) / 10));
  if (power === 0) return octets === 1 ? "1 octet" : `${octets} octets`;
  return `${(octets / 1024 ** power).toFixed(1)} ${units[power]}`;
}

/** An address with its port. */
export function endpoint(address, port) {
  if (!port) return address;
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Short texts in a row; after the first `most`, the number of the others. */
export function chips(texts, most = 6) {
  const shown = texts.slice(0, most).map((text) => el("span", { class: "chip" }, text));
  const rest = texts.length - shown.length;
  return rest > 0 ? [...shown, el("span", { class: "more", title: texts.slice(most).join(", ") }, `+${rest}`)] : shown;
}

/** The address of the page about a service or a node. */
export function hrefOf(part, name) {
  return `#/${part}/${encodeURIComponent(name)}`;
}

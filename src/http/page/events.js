// The list of recent events, newest first, which new events join.

import { follow } from "./api.js";
import { el, message } from "./dom.js";
import { filterBar } from "./filter.js";
import { clock, hrefOf, isProblem, mark, toneOfInstance } from "./format.js";
import { Rows } from "./rows.js";

/** Number of events shown; the agent keeps more. */
const MAX_EVENTS = 500;
const EMPTY = "No events since the agent started.";

/** Tones of events that are not about the state of an instance. */
const KINDS = {
  "node-joined": "ok",
  "node-alive": "ok",
  "node-suspect": "warning",
  "node-held": "warning",
  "node-restarting": "warning",
  "node-gone": "critical",
  "partition-began": "critical",
  "partition-ended": "ok",
  "file-problem": "critical",
  "file-mended": "ok",
  "gossip-rejected": "warning",
  missed: "warning",
};

/** Shows the list until the returned function is called. */
export function events(main, query, onFilter) {
  const list = el("ol", { class: "events", "aria-label": "Events, newest first" });
  const rows = new Rows(list, keyOf, eventRow);
  const filter = filterBar(main, query, {
    rows,
    noun: "event",
    empty: EMPTY,
    isProblem: (event) => isProblem(toneOf(event)),
    text: (event) => `${event.Kind}\n${event.Text}`,
    onFilter,
  });
  main.append(list);
  let known = [];
  let frame = 0;
  const draw = () => {
    frame = 0;
    rows.update(known);
    filter.update(known);
  };
  const stop = follow(
    "muster/events?since=0",
    (event) => {
      known = [event, ...known].slice(0, MAX_EVENTS);
      // The first events arrive together: they are drawn once.
      if (frame === 0) frame = requestAnimationFrame(draw);
    },
    true,
  );
  draw();
  return () => {
    cancelAnimationFrame(frame);
    stop();
  };
}

/** Identifies an event. Sequence numbers do not: they exceed the integers that a JavaScript number represents exactly. */
export function keyOf({ Time: time, Kind: kind, Text: text }) {
  return `${time} ${kind} ${text}`;
}

function toneOf({ Kind: kind, State: state }) {
  return KINDS[kind] ?? (state ? toneOfInstance(state) : "neutral");
}

/** One event as a line. The service and the node it names are links, unless `here` is the address of their page. */
export function eventRow(event, here = null) {
  const { Service: service, Node: node, Time: time, Kind: kind } = event;
  const names = [
    [service, "services"],
    [node, "nodes"],
  ];
  const pieces = linked(event.Text, names, here);
  // The arrow keys move from row to row: to the first link of each.
  pieces.find((piece) => piece.href)?.classList.add("row");
  return el("li", {}, clock(time), mark(toneOf(event), kind), el("span", { class: "text" }, pieces));
}

/** Splits a text into links, one for each name at its first occurrence, and what is between them. */
function linked(text, names, here) {
  const pieces = [];
  let rest = text;
  for (const [name, part] of names) {
    const at = name ? indexOfWord(rest, name) : -1;
    const href = at >= 0 && hrefOf(part, name);
    if (at < 0 || href === here) continue;
    pieces.push(message(rest.slice(0, at)), el("a", { href }, name));
    rest = rest.slice(at + name.length);
  }
  return [...pieces, message(rest)].flat();
}

/** Where `word` first occurs in a text other than as a part of a longer name; -1 if nowhere. */
function indexOfWord(text, word) {
  const isInName = (at) => /[\w-]/.test(text[at] ?? "");
  let at = text.indexOf(word);
  while (at >= 0 && (isInName(at - 1) || isInName(at + word.length))) at = text.indexOf(word, at + 1);
  return at;
}

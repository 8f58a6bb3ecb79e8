// What happened lately, and what happens.

import { Rows, el } from "./dom.js";
import { follow } from "./live.js";
import { narrowing } from "./narrow.js";
import { clock, mark, toneOfState } from "./words.js";

/** So many are shown; the agent keeps more. */
const MOST = 500;
const NONE = "Nothing has happened since the agent was started.";

/** What kinds mean that are not about an instance, where it is more or less than news. */
const KINDS = {
  "node-joined": "good",
  "node-alive": "good",
  "node-suspect": "fair",
  "node-held": "fair",
  "node-gone": "bad",
  "partition-began": "bad",
  "partition-ended": "good",
  "file-problem": "bad",
  "file-mended": "good",
  "gossip-rejected": "fair",
  missed: "fair",
};

/** Shows them until the function that it returns is called. */
export function events(main, query, narrowed) {
  const list = el("ol", { class: "events", "aria-label": "Events, the last one first" });
  const rows = new Rows(list, keyOf, eventRow);
  const amiss = (event) => ["fair", "bad"].includes(toneOf(event));
  const narrow = narrowing(
    main,
    query,
    narrowed,
    rows,
    "event",
    NONE,
    amiss,
    (event) => `${event.Kind}\n${event.Text}`,
  );
  main.append(list);
  let known = [];
  let due = 0;
  const draw = () => {
    due = 0;
    rows.update(known);
    narrow.update(known);
  };
  const stop = follow(
    "muster/events?since=0",
    (event) => {
      known = [event, ...known].slice(0, MOST);
      // Many come at once at first.
      if (due === 0) due = requestAnimationFrame(draw);
    },
    true,
  );
  draw();
  return () => {
    cancelAnimationFrame(due);
    stop();
  };
}

/** Numbers of events are larger than a number here can tell apart. */
export function keyOf({ Time: time, Kind: kind, Text: text }) {
  return `${time} ${kind} ${text}`;
}

function toneOf({ Kind: kind, State: state }) {
  return KINDS[kind] ?? (state ? toneOfState(state) : "held");
}

/** One event as a line. */
export function eventRow(event) {
  const { Service: service, Node: node } = event;
  const [part, name] = service ? ["services", service] : ["nodes", node];
  const text = name ? el("a", { class: "row", href: `#/${part}/${encodeURIComponent(name)}` }, event.Text) : event.Text;
  return el("li", {}, clock(event.Time), mark(toneOf(event), event.Kind), el("span", { class: "text" }, text));
}

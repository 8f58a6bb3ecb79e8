// What happened lately, and what happens.

import { Rows, el } from "./dom.js";
import { follow } from "./live.js";
import { clock, mark } from "./words.js";

/** So many are shown; the agent keeps no more either. */
const MOST = 500;

/** Shows them until the function that it returns is called. */
export function events(main) {
  const list = el("ol", { class: "events" });
  const none = el("p", { class: "told" }, "Nothing has happened yet.");
  main.append(none, list);
  const rows = new Rows(list, (event) => String(event.Seq), eventRow);
  let known = [];
  let due = 0;
  const draw = () => {
    due = 0;
    none.hidden = known.length > 0;
    rows.update(known);
  };
  const stop = follow("muster/events?since=0", (event) => {
    known = [event, ...known].slice(0, MOST);
    // Many come at once at first.
    if (due === 0) due = requestAnimationFrame(draw);
  }, true);
  return () => {
    cancelAnimationFrame(due);
    stop();
  };
}

/** One event as a line. */
export function eventRow(event) {
  return el("li", {}, clock(event.Time), mark("held", event.Kind), el("span", { class: "text" }, event.Text));
}

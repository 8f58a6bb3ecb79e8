// Sessions of Consul's API and leases of etcd's, with the number of their keys.

import { cell, el, show, table } from "./dom.js";
import { filterBar } from "./filter.js";
import { chips, count, duration, hrefOf } from "./format.js";
import { Pages } from "./pages.js";
import { poll } from "./poll.js";
import { handleRefusals, refusal } from "./store_refusal.js";

/** Milliseconds between two lists, at least; and between two counts of keys. */
const INTERVAL = 1000;
const COUNTS = 5000;
const SESSIONS = ["Session", "Node", "TTL", "At its end", "Checks", ["Keys", "number"]];
const LEASES = ["Lease", "TTL", "Remaining", ["Keys", "number"]];

/** Adds a list with a filter to `main`. Returns a function that shows an answer. */
function listOf(main, query, onFilter, { name, kind, columns, noun, empty, keyOf, row, text }) {
  const notice = el("div", { class: "notice" });
  const body = el("tbody", { role: "rowgroup" });
  const list = table(name, kind, columns);
  list.append(body);
  const rows = new Pages(body, keyOf, row, noun);
  const filter = filterBar(main, query, { rows, noun, empty, text, onFilter });
  main.append(notice, list, rows.below);
  handleRefusals(notice);
  return {
    notice,
    /** Shows these items, and the refusal if `answer` is one. */
    update(items, answer, isQuiet) {
      const refused = refusal(answer);
      show(notice, refused);
      rows.update(items, isQuiet);
      // A refused list is not an empty one.
      if (refused && items.length === 0) rows.filter(() => false);
      else filter.update(items);
    },
  };
}

/** Shows the sessions until the returned function is called. */
export function sessions(main, _, query, onFilter, onReady) {
  const list = listOf(main, query, onFilter, {
    name: "Sessions",
    kind: "sessions",
    columns: SESSIONS,
    noun: "session",
    empty: "No sessions. Programs create a session to lock keys.",
    keyOf: ({ ID: id }) => id,
    row: sessionRow,
    text: ({ ID: id, Name: name, Node: node }) => [id, name, node].join("\n"),
  });
  let all = null;
  let held = null;
  let last = null;
  let isFirst = true;

  function draw() {
    if (all === null) return;
    const items = all.map((session) => ({ ...session, Keys: held?.get(session.ID) ?? null }));
    list.update(items, last, isFirst);
    if (isFirst) onReady();
    isFirst = false;
  }

  const stops = [
    poll(
      "session/list",
      (answer) => {
        last = answer;
        all = answer.data ?? (answer.status < 500 ? [] : (all ?? []));
        all.sort((a, b) => (a.Name === b.Name ? (a.ID < b.ID ? -1 : 1) : a.Name < b.Name ? -1 : 1));
        draw();
      },
      INTERVAL,
    ),
    poll(
      "muster/store/sessions",
      ({ data }) => {
        if (data) held = new Map(data.map(({ ID: id, Keys: keys }) => [id, keys]));
        draw();
      },
      COUNTS,
    ),
  ];
  return () => stops.forEach((stop) => stop());
}

function sessionRow(session) {
  const { ID: id, Name: name, Node: node, TTL: ttl, Behavior: behavior, Keys: keys } = session;
  const checks = [...(session.NodeChecks ?? []), ...(session.ServiceChecks ?? []).map(({ ID: id }) => id)];
  const delay = Math.round(session.LockDelay / 1e6) / 1000;
  return el(
    "tr",
    { role: "row" },
    el(
      "th",
      { role: "rowheader", scope: "row", class: "name" },
      name && [name, " "],
      el("code", { class: "detail" }, id),
    ),
    cell("node", "Node", el("a", { class: "row", href: hrefOf("nodes", node) }, node)),
    cell("ttl", "TTL", ttl || "none"),
    cell(
      "end",
      "At its end",
      behavior === "delete" ? "deletes its keys" : "releases its keys",
      delay > 0 && el("span", { class: "detail" }, `, lock delay ${delay} s`),
    ),
    cell("checks-of", "Checks", checks.length > 0 ? chips(checks) : "none"),
    cell("number", "Keys", keys === null ? "" : String(keys)),
  );
}

/** Shows the leases until the returned function is called. */
export function leases(main, _, query, onFilter, onReady) {
  const list = listOf(main, query, onFilter, {
    name: "Leases",
    kind: "leases",
    columns: LEASES,
    noun: "lease",
    empty: "No leases. Clients of etcd's API attach keys to leases.",
    keyOf: ({ ID: id }) => id,
    row: leaseRow,
    text: ({ ID: id }) => id,
  });
  const limit = el("p", { class: "below" });
  main.append(limit);
  let all = null;
  return poll(
    "muster/store/leases",
    (answer) => {
      const isFirst = all === null;
      const { Leases: first, Total: total } = answer.data ?? {};
      all = first ?? (answer.status < 500 ? [] : (all ?? []));
      list.update(all, answer, true);
      if (first) {
        show(limit, total > first.length && `The agent lists the first ${first.length} of ${count(total, "lease")}.`);
      }
      if (isFirst) onReady();
    },
    INTERVAL * 2,
  );
}

function leaseRow({ ID: id, TTLSeconds: ttl, RemainingSeconds: remaining, Keys: keys }) {
  return el(
    "tr",
    { role: "row" },
    el("th", { role: "rowheader", scope: "row", class: "name" }, el("code", {}, id)),
    cell("ttl", "TTL", duration(ttl)),
    cell("remaining", "Remaining", duration(remaining)),
    cell("number", "Keys", String(keys)),
  );
}

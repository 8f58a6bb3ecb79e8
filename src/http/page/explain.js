// One service or node: its instances, and why each is answered or not.

import { Rows, cell, el, show, table } from "./dom.js";
import { eventRow, keyOf } from "./events.js";
import { ask, follow } from "./live.js";
import { announce } from "./news.js";
import { chips, count, endpoint, mark, since, toneOfCheck, toneOfState } from "./words.js";

/** An output of so many characters stands in its line; a longer one is opened. */
const SHORT = 240;
/** The last events that are shown. */
const EVENTS = 10;
/** From one question for them to the next, at least, in milliseconds. */
const PAUSE = 2000;

/** Shows it until the function that it returns is called. */
export function explain(main, part, name) {
  const above = el("div", { class: "facts" });
  const body = el("div", { class: "instances-of" });
  const notes = el("div", { class: "notes" });
  const lately = el(
    "section",
    { "aria-labelledby": "lately", hidden: true },
    el("h2", { id: "lately" }, "Lately"),
    el("ol", { class: "events" }),
  );
  const up = el("a", { href: `#/${part}`, class: "up" }, part === "nodes" ? "All nodes" : "All services");
  main.querySelector(".head").prepend(up);
  main.append(above, notes, body, lately);
  let rows = null;
  let events = null;
  let summary = null;
  let timer = 0;

  function list() {
    const columns = [
      "State",
      "Instance",
      part === "nodes" ? "Service" : "Node",
      "Address",
      ["Weight", "number"],
      "Since",
      "Why",
    ];
    const shown = table(`Instances of ${name}`, columns);
    shown.className = "instances";
    rows = new Rows(
      shown,
      (one) => `${one.Service}/${one.ID}@${one.Node}`,
      (one) => instance(one, part),
      shown.tHead,
    );
    body.append(shown);
  }

  async function askLately() {
    const all = await ask(
      `muster/events?follow=false&${part === "nodes" ? "node" : "service"}=${encodeURIComponent(name)}`,
    );
    timer = 0;
    if (!all) return;
    events ??= new Rows(lately.querySelector("ol"), keyOf, eventRow);
    events.update(all.slice(-EVENTS).reverse());
    lately.hidden = all.length === 0;
  }

  const path = part === "nodes" ? `${name}.node` : name;
  const stop = follow(`watch/muster/explain/${encodeURIComponent(path)}`, (explained) => {
    if (explained.Instances.length > 0 && !rows) list();
    rows?.update(explained.Instances);
    body.hidden = explained.Instances.length === 0;
    const ttl = ["service", "instance"].includes(explained.Kind)
      ? el("p", { class: "detail" }, `TTL ${explained.TTLSeconds} s, from ${explained.TTLFrom}`)
      : null;
    show(above, el("p", { class: "summary" }, explained.Summary), ttl);
    show(
      notes,
      explained.Notes.map((note) => el("p", { class: "note" }, note)),
    );
    if (summary !== null && summary !== explained.Summary) announce([`${name}: ${explained.Summary}`]);
    summary = explained.Summary;
    // What changes all the time is not asked for all the time.
    if (explained.Kind !== "unknown" && timer === 0) timer = setTimeout(askLately, events ? PAUSE : 0);
  });
  return () => {
    clearTimeout(timer);
    stop();
  };
}

/** An instance is a group of rows: what it is, and its checks. */
function instance(one, part) {
  const other = part === "nodes" ? ["services", one.Service] : ["nodes", one.Node];
  const address = one.Addresses.map((address) => endpoint(address, one.Port)).join(" ");
  const renamed = one.RegisteredAs && one.RegisteredAs !== one.ID;
  const registered = renamed ? el("span", { class: "detail" }, ` registered as ${one.RegisteredAs}`) : null;
  const group = el(
    "tbody",
    { role: "rowgroup" },
    el(
      "tr",
      { role: "row" },
      cell("state", "State", mark(toneOfState(one.State), one.State)),
      el(
        "th",
        { role: "rowheader", scope: "row", class: "name" },
        one.ID,
        registered,
        " ",
        el("span", { class: "tags" }, chips(one.Tags)),
      ),
      cell(
        "other",
        part === "nodes" ? "Service" : "Node",
        el("a", { class: "row", href: `#/${other[0]}/${encodeURIComponent(other[1])}` }, other[1]),
      ),
      cell("address", "Address", address),
      cell("number", "Weight", String(one.Weight)),
      cell("since", "Since", since(one.Since)),
      cell("why", "Why", one.Why),
    ),
  );
  if (one.Checks.length > 0) {
    group.append(el("tr", { role: "row", class: "checks" }, el("td", { role: "cell", colspan: "7" }, checks(one))));
  }
  return group;
}

function checks(one) {
  const states = {};
  for (const { Status: status } of one.Checks) states[status] = (states[status] ?? 0) + 1;
  const told = Object.entries(states).map(([status, number]) => `${number} ${status}`);
  const all = count(one.Checks.length, "check");
  const short = told.length === 1 ? `${all} ${one.Checks[0].Status}` : `${all}: ${told.join(", ")}`;
  const amiss = one.Checks.some((check) => check.Status !== "passing");
  return el(
    "details",
    { "data-open": String(amiss), open: amiss },
    el("summary", {}, short),
    el("ul", {}, one.Checks.map(check)),
  );
}

function check({ Name: name, Status: status, Output: output, Since: at }) {
  const long = output.length > SHORT || output.includes("\n");
  const said = long
    ? el(
        "details",
        { class: "output" },
        el("summary", {}, output.split("\n")[0].slice(0, SHORT)),
        el("pre", {}, output),
      )
    : el("span", { class: "output" }, output);
  return el(
    "li",
    {},
    mark(toneOfCheck(status), status),
    el("span", { class: "name" }, name),
    el("span", { class: "since" }, since(at)),
    said,
  );
}

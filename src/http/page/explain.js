// One service, node or other name: what DNS answers, its instances, and the reason for the state of each.

import { announce } from "./announce.js";
import { follow, request } from "./api.js";
import { cell, el, message, show, table } from "./dom.js";
import { eventRow, keyOf } from "./events.js";
import { chips, count, endpoint, hrefOf, mark, severity, since, toneOfCheck, toneOfInstance } from "./format.js";
import { Order } from "./order.js";
import { instancesOverview } from "./overview.js";
import { Rows } from "./rows.js";

/** A check's output of more characters than this is collapsed. */
const MAX_INLINE_OUTPUT = 240;
/** Number of recent events shown. */
const MAX_EVENTS = 10;
/** Milliseconds between two requests for them, at least. */
const EVENTS_INTERVAL = 2000;

/** Fields of an explanation that have a place of their own. Others are listed by their names. */
const KNOWN_FIELDS = [
  ["Name", "Kind", "Summary", "TTLSeconds", "TTLFrom", "Checks", "Instances", "Notes"],
  ["Question", "RCode", "Records", "Nearest"],
  // The summary names these.
  ["Source", "Owner", "File", "Line"],
].flat();

/** Shows the name until the returned function is called. */
export function explain(main, part, name) {
  const facts = el("div", { class: "facts" });
  const notes = el("div", { class: "notes" });
  const ofNode = el(
    "section",
    { "aria-labelledby": "node-checks", class: "node-checks", hidden: true },
    el("h2", { id: "node-checks" }, "Checks of the node"),
    el("div", { class: "checks" }),
  );
  const instances = el("div", { class: "instances-list" });
  const recent = el(
    "section",
    { "aria-labelledby": "recent", hidden: true },
    el("h2", { id: "recent" }, "Recent events"),
    el("ol", { class: "events" }),
  );
  const up = el("a", { href: `#/${part}`, class: "up" }, part === "nodes" ? "All nodes" : "All services");
  main.querySelector(".head").prepend(up);
  main.append(facts, notes, ofNode, instances, recent);
  const here = hrefOf(part, name);
  let latest = null;
  let rows = null;
  let events = null;
  let timer = 0;

  const order = new Order(
    keyOfInstance,
    (one) => severity(toneOfInstance(one.State)),
    () => drawInstances(),
  );

  function list() {
    const other = part === "nodes" ? "Service" : "Node";
    const columns = ["State", "Instance", other, "Address", ["Weight", "number"], "Since", "Reason"];
    const shown = table(`Instances of ${name}`, "instances", columns);
    instances.append(shown);
    return new Rows(shown, keyOfInstance, (one) => instanceRows(one, part), shown.tHead);
  }

  function drawInstances() {
    const all = latest.Instances ?? [];
    if (all.length > 0) rows ??= list();
    rows?.update(order.sort(all));
    instances.hidden = all.length === 0;
    show(main.querySelector(".overview"), instancesOverview(all));
  }

  async function requestEvents() {
    const filter = eventFilter(latest);
    const all = filter && (await request(`muster/events?follow=false&${filter}`));
    timer = 0;
    if (!all) return;
    events ??= new Rows(recent.querySelector("ol"), keyOf, (event) => eventRow(event, here));
    events.update(all.slice(-MAX_EVENTS).reverse());
    recent.hidden = all.length === 0;
  }

  const path = part === "nodes" && isLabel(name) ? `${name}.node` : name;
  const stop = follow(`watch/muster/explain/${encodeURIComponent(path)}`, (explained) => {
    const previous = latest;
    latest = explained;
    drawInstances();
    show(facts, el("p", { class: "summary" }, kindOf(explained), message(explained.Summary)), details(explained));
    show(
      notes,
      (explained.Notes ?? []).map((note) => el("p", { class: "note" }, message(note))),
    );
    const { Checks: results } = explained;
    ofNode.hidden = results.length === 0;
    show(ofNode.querySelector(".checks"), results.length > 0 && checks(results));
    if (previous && previous.Summary !== explained.Summary) announce([`${name}: ${explained.Summary}`]);
    // States that change often do not cause as many requests.
    if (eventFilter(explained) && timer === 0) timer = setTimeout(requestEvents, events ? EVENTS_INTERVAL : 0);
  });
  return () => {
    clearTimeout(timer);
    order.stop();
    stop();
  };
}

/** Whether a node has a DNS name. An external node may have any name. */
function isLabel(name) {
  return /^[\w-]+$/.test(name);
}

/** The query for the events of a service or a node. Other names have no events. */
function eventFilter({ Name: name, Kind: kind, Instances: [first] = [] }) {
  if (kind === "node") {
    const node = first?.Node ?? name.replace(/\.node$/, "");
    return isLabel(node) ? `node=${encodeURIComponent(node)}` : null;
  }
  if (kind === "service" || kind === "instance") return first ? `service=${encodeURIComponent(first.Service)}` : null;
  return null;
}

function keyOfInstance(one) {
  return `${one.Service}/${one.ID}@${one.Node}`;
}

/** The kind of the name, except for services and nodes. */
function kindOf({ Kind: kind }) {
  if (["service", "instance", "node", "unknown"].includes(kind)) return null;
  return [el("span", { class: "chip" }, kind.replaceAll("-", " ")), " "];
}

/** The DNS answer, the TTL with its source, and the fields that only some kinds have. */
function details(explained) {
  const { TTLSeconds: ttl, TTLFrom: from, Instances: instances = [] } = explained;
  const { Question: question, RCode: rcode, Records: records = [] } = explained;
  const answer = [question, rcode, records.join(", ")].filter(Boolean).join(" · ");
  const hasTtl = from && (ttl > 0 || instances.length > 0);
  const others = Object.entries(explained).filter(([field, value]) => !KNOWN_FIELDS.includes(field) && value);
  return [
    answer && el("p", { class: "detail" }, answer),
    hasTtl && el("p", { class: "detail" }, `TTL ${ttl} s, from `, message(from)),
    explained.Nearest && tiers(explained.Nearest),
    others.map(([field, value]) => el("p", { class: "detail" }, `${words(field)}: `, plain(value))),
  ];
}

/** The choice of near instances: its policy, and each tier with its healthy instances. */
function tiers({ Nearest: first, NearestFrom: from, MinHealthy: enough, MinHealthyFrom: enoughFrom, Tiers: all }) {
  return el(
    "div",
    { class: "detail" },
    el("p", {}, `Nearest ${first}, from `, message(from), `; at least ${enough} healthy, from `, message(enoughFrom)),
    el("ul", { class: "tiers" }, all.map(tier)),
  );
}

function tier({ Tier: kind, Name: name, Declared: declared, Healthy: healthy, Warming: warming, ...rest }) {
  const area = kind === "zone" && !name ? "zone: none" : `${kind} ${name}`.trim();
  // Each healthy instance counts for the last tier.
  const counted = warming > 0 && kind !== "all" ? `, ${healthy - warming} counted (${warming} in a slow start)` : "";
  const text = `${area}: ${healthy} of ${declared} healthy${counted}, ${rest.Required} required`;
  return el("li", {}, text, rest.Answered && [" ", el("span", { class: "chip" }, "answered")]);
}

/** `ZoneFile` as `Zone file`. */
function words(field) {
  const [first, ...rest] = field.replace(/([a-z])([A-Z])/g, "$1 $2").split(" ");
  return [first, ...rest.map((word) => word.toLowerCase())].join(" ");
}

function plain(value) {
  if (Array.isArray(value)) return value.map(plain).join(", ") || "none";
  if (typeof value !== "object") return String(value);
  return Object.entries(value)
    .filter(([, inner]) => inner !== null)
    .map(([field, inner]) => `${words(field).toLowerCase()} ${plain(inner)}`)
    .join(", ");
}

/** An instance is a group of rows: its state, and its checks. */
function instanceRows(one, part) {
  const [label, other, href] =
    part === "nodes"
      ? ["Service", one.Service, hrefOf("services", one.Service)]
      : ["Node", one.Node, hrefOf("nodes", one.Node)];
  const isRenamed = one.RegisteredAs && one.RegisteredAs !== one.ID;
  const group = el(
    "tbody",
    { role: "rowgroup" },
    el(
      "tr",
      { role: "row" },
      cell("state", "State", mark(toneOfInstance(one.State), one.State)),
      el(
        "th",
        { role: "rowheader", scope: "row", class: "name" },
        one.ID,
        isRenamed && el("span", { class: "detail" }, ` registered as ${one.RegisteredAs}`),
        " ",
        el("span", { class: "tags" }, chips(one.Tags)),
      ),
      cell("other", label, el("a", { class: "row", href }, other)),
      cell("address", "Address", one.Addresses.map((address) => endpoint(address, one.Port)).join(" ")),
      cell("number", "Weight", String(one.Weight)),
      cell("since", "Since", since(one.Since)),
      cell("why", "Reason", message(one.Why)),
    ),
  );
  if (one.Checks.length > 0) {
    group.append(el("tr", { role: "row", class: "checks" }, el("td", { role: "cell", colspan: "7" }, checks(one.Checks))));
  }
  return group;
}

/** The checks of an instance or a node, open if one does not pass. */
function checks(results) {
  const statuses = {};
  for (const { Status: status } of results) statuses[status] = (statuses[status] ?? 0) + 1;
  const parts = Object.entries(statuses).map(([status, number]) => `${number} ${status}`);
  const all = count(results.length, "check");
  const heading = parts.length === 1 ? `${all} ${results[0].Status}` : `${all}: ${parts.join(", ")}`;
  const open = results.some((check) => check.Status !== "passing");
  return el(
    "details",
    { "data-open": String(open), open },
    el("summary", {}, heading),
    el("ul", {}, results.map(check)),
  );
}

function check({ Name: name, Status: status, Output: output, Since: at }) {
  return el(
    "li",
    {},
    mark(toneOfCheck(status), status),
    el("span", { class: "name" }, name),
    el("span", { class: "since" }, since(at)),
    outputOf(output),
  );
}

/** The output of a check is the service's text: it is shown literally. */
function outputOf(output) {
  const isLong = output.length > MAX_INLINE_OUTPUT || output.includes("\n");
  if (!isLong) return el("span", { class: "output" }, output);
  const firstLine = output.split("\n")[0].slice(0, MAX_INLINE_OUTPUT);
  return el("details", { class: "output" }, el("summary", {}, firstLine), el("pre", {}, output));
}

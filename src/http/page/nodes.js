// The list of the cluster's nodes and of external nodes, as the agent sees them.

import { announce } from "./announce.js";
import { follow } from "./api.js";
import { cell, el, rowHead, show, table } from "./dom.js";
import { filterBar } from "./filter.js";
import { endpoint, hrefOf, isProblem, mark, severity, since, toneOfCheck, toneOfNode } from "./format.js";
import { Order } from "./order.js";
import { nodesOverview } from "./overview.js";
import { Rows } from "./rows.js";

const COLUMNS = ["Reach", "Node", "Since", ["Instances", "number"], "Address", "Datacenter", "Version", "View"];
/** Digits of a view's digest that are shown: enough to tell two views apart. */
const DIGITS = 8;

/** Shows the list until the returned function is called. */
export function nodes(main, query, onFilter, onReady) {
  const overview = main.querySelector(".overview");
  const body = el("tbody", { role: "rowgroup" });
  const list = table("Nodes", "members", COLUMNS);
  list.append(body);
  const rows = new Rows(body, keyOf, (node) => (node.Muster ? row(node) : externalRow(node)));
  const filter = filterBar(main, query, {
    rows,
    noun: "node",
    empty: "",
    isProblem: (node) => isProblem(tone(node)),
    text: searched,
    onFilter,
  });
  main.append(list);
  let all = null;

  const order = new Order(
    keyOf,
    (node) => severity(tone(node)),
    () => draw(),
  );

  function draw() {
    const changed = rows.update(order.sort(all));
    filter.update(all);
    return changed;
  }

  const stop = follow("watch/muster/nodes", ({ Members: members, External: external }) => {
    const isFirst = all === null;
    all = [...members, ...external];
    const moved = draw().filter(({ item, before }) => state(item) !== state(before));
    announce(moved.map(({ item }) => `${item.Name} is ${state(item)}`));
    const reaches = {};
    for (const { Muster: muster } of members) reaches[muster.Reach] = (reaches[muster.Reach] ?? 0) + 1;
    const diverging = members.filter(({ Muster: muster }) => muster.ViewDiffersSince).length;
    show(overview, nodesOverview(reaches, diverging, external));
    if (isFirst) onReady();
  });
  return () => {
    order.stop();
    stop();
  };
}

/** Members and external nodes have names of their own: a member takes precedence. */
function keyOf({ Name: name }) {
  return name;
}

/** The reachability of a member, or the status of an external node. */
function state({ Muster: muster, Status: status }) {
  return muster?.Reach ?? status;
}

function tone({ Muster: muster, Status: status }) {
  if (!muster) return toneOfCheck(status);
  const tone = toneOfNode(muster.Reach);
  return muster.ViewDiffersSince && !isProblem(tone) ? "warning" : tone;
}

function searched(node) {
  const { Name: name, Addr: address, Muster: muster } = node;
  if (!muster) return [name, node.Address, node.Status, node.Datacenter, "external", node.Owner].join("\n");
  return [name, address, muster.Reach, muster.Datacenter, muster.Zone ?? "", muster.Version].join("\n");
}

function row({ Name: name, Addr: address, Port: port, Muster: muster }) {
  const { Reach: reach, Cause: cause, Instances: instances, Since: at, Version: version, Datacenter: site } = muster;
  const { View: view, ViewDiffersSince: differs, Zone: zone } = muster;
  return el(
    "tr",
    { role: "row" },
    cell("state", "Reach", mark(toneOfNode(reach), reach), " ", cause && el("span", { class: "detail" }, cause)),
    rowHead(name, hrefOf("nodes", name)),
    cell("since", "Since", since(at)),
    cell("number", "Instances", String(instances)),
    cell("address", "Address", endpoint(address, port)),
    cell("site", "Datacenter", site ?? "", zone && el("span", { class: "detail" }, ` zone ${zone}`)),
    cell("version", "Version", version ?? ""),
    cell(
      "view",
      "View",
      differs && [mark("warning", "differs"), " for ", since(differs), " "],
      view && el("code", { title: view }, view.slice(0, DIGITS)),
    ),
  );
}

function externalRow({ Name: name, Address: address, Status: status, Instances: instances, Datacenter: site, Owner: owner }) {
  const through = el("span", { class: "detail" }, " external, through ", el("a", { href: hrefOf("nodes", owner) }, owner));
  return el(
    "tr",
    { role: "row" },
    cell("state", "Reach", mark(toneOfCheck(status), status)),
    rowHead(name, hrefOf("nodes", name), through),
    cell("since", "Since"),
    cell("number", "Instances", String(instances)),
    cell("address", "Address", address),
    cell("site", "Datacenter", site),
    cell("version", "Version"),
    cell("view", "View"),
  );
}

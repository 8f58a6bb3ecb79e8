// The list of the cluster's nodes, as the agent sees them.

import { announce } from "./announce.js";
import { follow } from "./api.js";
import { cell, el, rowHead, show, table } from "./dom.js";
import { filterBar } from "./filter.js";
import { endpoint, hrefOf, isProblem, mark, severity, since, toneOfNode } from "./format.js";
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
  const rows = new Rows(body, (member) => member.Name, row);
  const filter = filterBar(main, query, {
    rows,
    noun: "node",
    empty: "",
    isProblem: (member) => isProblem(tone(member)),
    text: searched,
    onFilter,
  });
  main.append(list);
  let all = null;

  const order = new Order(
    (member) => member.Name,
    (member) => severity(tone(member)),
    () => draw(),
  );

  function draw() {
    const changed = rows.update(order.sort(all));
    filter.update(all);
    return changed;
  }

  const stop = follow("watch/agent/members", (members) => {
    const isFirst = all === null;
    all = members;
    const moved = draw().filter(({ item, before }) => item.Muster.Reach !== before.Muster.Reach);
    announce(moved.map(({ item }) => `${item.Name} is ${item.Muster.Reach}`));
    const reaches = {};
    for (const { Muster: muster } of all) reaches[muster.Reach] = (reaches[muster.Reach] ?? 0) + 1;
    const diverging = all.filter(({ Muster: muster }) => muster.ViewDiffersSince).length;
    show(overview, nodesOverview(reaches, diverging));
    if (isFirst) onReady();
  });
  return () => {
    order.stop();
    stop();
  };
}

function tone({ Muster: muster }) {
  const tone = toneOfNode(muster.Reach);
  return muster.ViewDiffersSince && !isProblem(tone) ? "warning" : tone;
}

function searched({ Name: name, Addr: address, Muster: muster }) {
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

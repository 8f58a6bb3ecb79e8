// The nodes of the cluster, as the agent sees them.

import { Rows, cell, el, table } from "./dom.js";
import { follow } from "./live.js";
import { narrowing } from "./narrow.js";
import { announce } from "./news.js";
import { endpoint, mark, since, toneOfReach } from "./words.js";

const COLUMNS = ["Reach", "Node", "Since", ["Instances", "number"], "Address", "Datacenter", "Version", "View"];
/** Digits of a view's digest that are shown: enough to tell two apart. */
const DIGITS = 8;

/** Shows them until the function that it returns is called. */
export function nodes(main, query, narrowed, ready) {
  const body = el("tbody", { role: "rowgroup" });
  const shown = table("Nodes", COLUMNS);
  shown.className = "members";
  shown.append(body);
  const rows = new Rows(body, (member) => member.Name, row);
  const amiss = ({ Muster: { Reach: reach, ViewDiffersSince: differs } }) => differs || toneOfReach(reach) !== "good";
  const narrow = narrowing(main, query, narrowed, rows, "node", "", amiss, text);
  main.append(shown);
  let first = true;
  return follow("watch/agent/members", (all) => {
    const changed = rows.update(all);
    narrow.update(all);
    const moved = changed.filter(({ item, before }) => item.Muster.Reach !== before.Muster.Reach);
    announce(moved.map(({ item }) => `${item.Name} is ${item.Muster.Reach}`));
    if (first) ready();
    first = false;
  });
}

function text({ Name: name, Addr: address, Muster: standing }) {
  return [name, address, standing.Reach, standing.Datacenter, standing.Version].join("\n");
}

function row({ Name: name, Addr: address, Port: port, Muster: standing }) {
  const { Reach: reach, Cause: cause, Instances: instances, Since: at, Version: version, Datacenter: site } = standing;
  const { View: view, ViewDiffersSince: differs } = standing;
  const otherwise = differs ? [mark("fair", "differs"), " for ", since(differs), " "] : null;
  return el(
    "tr",
    { role: "row" },
    cell("state", "Reach", mark(toneOfReach(reach), reach), " ", cause ? el("span", { class: "detail" }, cause) : null),
    el(
      "th",
      { role: "rowheader", scope: "row", class: "name" },
      el("a", { class: "row", href: `#/nodes/${encodeURIComponent(name)}` }, name),
    ),
    cell("since", "Since", since(at)),
    cell("number", "Instances", String(instances)),
    cell("address", "Address", endpoint(address, port)),
    cell("site", "Datacenter", site ?? ""),
    cell("version", "Version", version ?? ""),
    cell("view", "View", otherwise, view ? el("code", { title: view }, view.slice(0, DIGITS)) : null),
  );
}

// All services: how many of their instances are answered, and what is amiss.

import { Rows, cell, el, table } from "./dom.js";
import { follow } from "./live.js";
import { narrowing } from "./narrow.js";
import { announce } from "./news.js";
import { chips, count, mark, standing } from "./words.js";

const NONE = "No node announces a service yet: a file in services_dir, or a registration by HTTP, makes one.";
const COLUMNS = ["State", "Service", ["Answered", "number"], "Tags", "Nodes"];

/** Shows them until the function that it returns is called. */
export function services(main, query, narrowed, ready) {
  const body = el("tbody", { role: "rowgroup" });
  const shown = table("Services", COLUMNS);
  shown.className = "services";
  shown.append(body);
  const rows = new Rows(body, (summary) => summary.Name, row);
  const amiss = (summary) => ["fair", "bad"].includes(standing(summary).tone);
  const narrow = narrowing(main, query, narrowed, rows, "service", NONE, amiss, text);
  main.append(shown);
  let first = true;
  return follow("watch/internal/ui/services", (all) => {
    const changed = rows.update(all);
    narrow.update(all);
    announce(
      changed
        .filter(({ item, before }) => said(item) !== said(before))
        .map(({ item }) => `${item.Name}: ${said(item)}`),
    );
    if (first) ready();
    first = false;
  });
}

function said(summary) {
  return `${summary.Muster.Answered} of ${summary.InstanceCount} answered`;
}

function text(summary) {
  return [summary.Name, ...summary.Tags, ...summary.Nodes, ...Object.keys(summary.Muster.States)].join("\n");
}

function row(summary) {
  const { tone, word, detail } = standing(summary);
  const { Name: name, Nodes: nodes, InstanceCount: all } = summary;
  const more = detail ? el("span", { class: "detail" }, detail) : null;
  return el(
    "tr",
    { role: "row" },
    cell("state", "State", mark(tone, word), " ", more),
    el(
      "th",
      { role: "rowheader", scope: "row", class: "name" },
      el("a", { class: "row", href: `#/services/${encodeURIComponent(name)}` }, name),
    ),
    cell("number", "Answered", `${summary.Muster.Answered} of ${all}`),
    cell("tags", "Tags", chips(summary.Tags)),
    cell("nodes", "Nodes", nodes.length > 3 ? count(nodes.length, "node") : nodes.join(", ")),
  );
}

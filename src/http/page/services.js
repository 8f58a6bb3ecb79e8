// The list of services: health, instances in answers, tags and nodes.

import { announce } from "./announce.js";
import { follow } from "./api.js";
import { cell, el, rowHead, show, table } from "./dom.js";
import { filterBar } from "./filter.js";
import { chips, count, health, hrefOf, isProblem, mark, severity } from "./format.js";
import { Order } from "./order.js";
import { servicesOverview } from "./overview.js";
import { Rows } from "./rows.js";
import { onStatus } from "./status.js";

const EMPTY = "No services yet. Add a file to services_dir or register a service over HTTP.";
const COLUMNS = ["State", "Service", ["Answered", "number"], "Tags", "Nodes"];
/** More nodes than this are shown as a number. */
const MAX_NODES = 3;

/** Shows the list until the returned function is called. */
export function services(main, query, onFilter, onReady) {
  const overview = main.querySelector(".overview");
  const body = el("tbody", { role: "rowgroup" });
  const list = table("Services", "services", COLUMNS);
  list.append(body);
  const rows = new Rows(body, (summary) => summary.Name, row);
  const filter = filterBar(main, query, {
    rows,
    noun: "service",
    empty: EMPTY,
    isProblem: (summary) => isProblem(health(summary).tone),
    text: searched,
    onFilter,
  });
  main.append(list);
  let all = null;
  let members = null;

  const order = new Order(
    (summary) => summary.Name,
    (summary) => severity(health(summary).tone),
    () => draw(),
  );

  function draw() {
    const changed = rows.update(order.sort(all));
    filter.update(all);
    return changed;
  }

  function summarize() {
    if (all) show(overview, servicesOverview(all, members));
  }

  const stopStatus = onStatus((status) => {
    members = status.Muster.Members;
    summarize();
  });
  const stop = follow("watch/internal/ui/services", (summaries) => {
    const isFirst = all === null;
    all = summaries;
    const changed = draw().filter(({ item, before }) => answered(item) !== answered(before));
    announce(changed.map(({ item }) => `${item.Name}: ${answered(item)}`));
    summarize();
    if (isFirst) onReady();
  });
  return () => {
    order.stop();
    stopStatus();
    stop();
  };
}

function answered(summary) {
  return `${summary.Muster.Answered} of ${count(summary.InstanceCount, "instance")} answered`;
}

function searched(summary) {
  const { Name: name, Tags: tags, Nodes: nodes, Muster: muster } = summary;
  return [name, health(summary).word, ...tags, ...nodes, ...Object.keys(muster.States)].join("\n");
}

/** The tier that the agent answers of a service that prefers near instances. */
function tierOf({ Muster: { Tier: tier } }) {
  return tier && el("span", { class: "detail" }, tier === "all" ? " from all" : ` from the ${tier}`);
}

function row(summary) {
  const { tone, word, detail } = health(summary);
  const { Name: name, Nodes: nodes, InstanceCount: all } = summary;
  return el(
    "tr",
    { role: "row" },
    cell("state", "State", mark(tone, word), " ", detail && el("span", { class: "detail" }, detail)),
    rowHead(name, hrefOf("services", name)),
    cell("number", "Answered", `${summary.Muster.Answered} of ${all}`, tierOf(summary)),
    cell("tags", "Tags", chips(summary.Tags)),
    cell("nodes", "Nodes", nodes.length > MAX_NODES ? count(nodes.length, "node") : nodes.join(", ")),
  );
}

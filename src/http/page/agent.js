// The agent that serves this page: its identity, listeners, view of the cluster, files and holds.

import { setToken, token } from "./api.js";
import { el, facts, message, show } from "./dom.js";
import { clock, count, hrefOf, mark, since } from "./format.js";
import { onStatus } from "./status.js";

/** Shows the agent until the returned function is called. */
export function agent(main) {
  const sections = el("div", { class: "agent" });
  main.append(sections);
  sections.addEventListener("click", (event) => {
    if (event.target.dataset.action === "forget") setToken(null);
  });
  return onStatus(({ Config: config, Member: member, Muster: status }) => {
    const { Listen: listen } = status;
    show(
      sections,
      facts("This node", [
        ["Name", config.NodeName],
        ["Datacenter", status.Zone ? `${config.Datacenter}, zone ${status.Zone}` : config.Datacenter],
        ["Zone", status.Domain],
        ["Version", status.Version],
        ["Uptime", since(member.Muster.Since)],
        ["Advertised addresses", list(status.Advertise)],
        ["DNS", list(listen.Dns)],
        ["HTTP", list(listen.Http)],
        ["Gossip", listen.Gossip],
      ]),
      facts("Cluster", [
        ["Members", list(Object.entries(status.Members).map(([reach, number]) => `${number} ${reach}`))],
        [
          "Partition",
          status.Partitioned ? [mark("critical", "yes"), " for ", since(status.Partitioned)] : mark("ok", "no"),
        ],
        status.Diverging && ["Views", views(status.Diverging)],
        [
          "Encryption",
          status.Sealed
            ? mark("ok", "on")
            : [mark("warning", "off"), " Gossip can be read and forged. Set ", el("code", {}, "gossip.key_file"), "."],
        ],
        ["Rejected frames", rejected(status.Rejected)],
      ]),
      files(status.Files ?? []),
      holds(status.Held ?? []),
      token() && el("p", {}, el("button", { type: "button", "data-action": "forget" }, "Forget the token")),
    );
  });
}

/** The folders, what of each is in service, and the diagnostics of their files. */
function files(folders) {
  if (folders.length === 0) return null;
  const pairs = folders.map((folder) => {
    const { Problems: problems, MoreProblems: more } = folder;
    const number = problems.length + more;
    const state = number > 0 ? mark("critical", count(number, "problem")) : mark("ok", "no problems");
    const lines = problems.map(diagnostic);
    if (more > 0) lines.push(el("li", { class: "detail" }, `and ${more} more`));
    return [folder.Path, [state, ` ${folder.InService}`, el("ul", { class: "problems" }, lines)]];
  });
  return facts("Files", pairs);
}

function diagnostic({ File: file, Line: line, Column: column, Severity: severity, Message: text, Hint: hint }) {
  return el(
    "li",
    {},
    mark(severity === "error" ? "critical" : "warning", severity),
    " ",
    el("code", {}, `${file}:${line}:${column}`),
    " ",
    message(text),
    hint && el("span", { class: "detail" }, " ", message(hint)),
  );
}

/** The holds on this node: instances, or the whole node, that an operator or a rule withholds from answers. */
function holds(all) {
  if (all.length === 0) return null;
  const pairs = all.map(({ Instance: instance, Gate: kind, Reason: reason, Since: at, Until: until }) => {
    const name = instance ? el("a", { href: hrefOf("services", instance.split("/")[0]) }, instance) : "The whole node";
    const end = until && [", until ", clock(until)];
    return [name, [mark("neutral", kind), " for ", since(at), end, reason && `: ${reason}`]];
  });
  return facts("Holds", pairs);
}

function list(texts) {
  return texts.length > 0 ? texts.join(", ") : "none";
}

/** The nodes whose view of the cluster differs from this agent's. */
function views(diverging) {
  const nodes = Object.entries(diverging);
  if (nodes.length === 0) return mark("ok", "equal on all nodes");
  const links = nodes.map(([node, at]) => [" ", el("a", { href: hrefOf("nodes", node) }, node), " for ", since(at)]);
  return [mark("warning", "differ"), links];
}

function rejected(reasons) {
  const entries = Object.entries(reasons);
  if (entries.length === 0) return mark("ok", "none");
  const total = entries.reduce((sum, [, number]) => sum + number, 0);
  return [
    mark("warning", count(total, "frame")),
    ` ${entries.map(([reason, number]) => `${reason}: ${number}`).join(", ")}`,
  ];
}

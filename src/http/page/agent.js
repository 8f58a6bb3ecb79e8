// The agent that serves this page: what it is, what it listens on, and what is not as it should be.

import { el, show } from "./dom.js";
import { follow, setToken, token } from "./live.js";
import { clock, count, mark, since } from "./words.js";

/** Shows it until the function that it returns is called. */
export function agent(main) {
  const place = el("div", { class: "agent" });
  main.append(place);
  place.addEventListener("click", (event) => {
    if (event.target.dataset.do === "forget") setToken(null);
  });
  return follow("watch/agent/self", (self) => {
    const { Config: config, Member: member, Muster: status } = self;
    const { Listen: listen } = status;
    show(
      place,
      facts("This node", [
        ["Name", config.NodeName],
        ["Datacenter", config.Datacenter],
        ["Zone", status.Domain],
        ["Version", config.Version],
        ["Running for", since(member.Muster.Since)],
        ["Advertises", list(status.Advertise)],
        ["DNS on", list(listen.Dns)],
        ["HTTP on", list(listen.Http)],
        ["Gossip on", listen.Gossip],
      ]),
      facts("Its cluster", [
        ["Members", list(Object.entries(status.Members).map(([reach, number]) => `${number} ${reach}`))],
        [
          "Partitioned",
          status.Partitioned ? [mark("bad", "yes"), " for ", since(status.Partitioned)] : mark("good", "no"),
        ],
        status.Diverging ? ["Answers", alike(status.Diverging)] : null,
        [
          "Sealed",
          status.Sealed
            ? mark("good", "with a key")
            : [mark("fair", "no"), " what nodes tell each other can be read and forged"],
        ],
        ["Rejected", rejected(status.Rejected)],
      ]),
      files(status.Files ?? []),
      held(status.Held ?? []),
      token() ? el("p", {}, el("button", { type: "button", "data-do": "forget" }, "Forget the token")) : null,
    );
  });
}

function facts(title, pairs) {
  const items = pairs.filter(Boolean).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  return el("section", {}, el("h2", {}, title), el("dl", {}, items));
}

/** The folders, what of them is in service, and what is wrong with their files. */
function files(folders) {
  if (folders.length === 0) return null;
  const pairs = folders.map((folder) => {
    const { Problems: problems, MoreProblems: more } = folder;
    const all = problems.length + more;
    const said = all > 0 ? mark("bad", count(all, "problem")) : mark("good", "no problem");
    const shown = problems.map(problem);
    if (more > 0) shown.push(el("li", { class: "detail" }, `and ${more} more`));
    return [folder.Path, [said, ` ${folder.InService} in service`, el("ul", { class: "problems" }, shown)]];
  });
  return facts("Files", pairs);
}

function problem({ File: file, Line: line, Column: column, Severity: severity, Message: message, Hint: hint }) {
  const place = el("code", {}, `${file}:${line}:${column}`);
  return el(
    "li",
    {},
    mark(severity === "error" ? "bad" : "fair", severity),
    " ",
    place,
    ` ${message}`,
    hint ? el("span", { class: "detail" }, ` ${hint}`) : null,
  );
}

/** What somebody holds back on this node. */
function held(all) {
  if (all.length === 0) return null;
  const pairs = all.map(({ Instance: instance, Gate: gate, Reason: reason, Since: at, Until: until }) => {
    const name = instance
      ? el("a", { href: `#/services/${encodeURIComponent(instance.split("/")[0])}` }, instance)
      : "The node";
    const end = until ? [", until ", clock(until)] : [];
    return [name, [mark("held", gate), " for ", since(at), end, reason ? `: ${reason}` : null]];
  });
  return facts("Held back here", pairs);
}

function list(texts) {
  return texts.length > 0 ? texts.join(", ") : "none";
}

/** Nodes that answer otherwise than this one. */
function alike(diverging) {
  const told = Object.entries(diverging);
  if (told.length === 0) return mark("good", "alike on all nodes");
  return [
    mark("fair", "differ"),
    told.map(([node, at]) => [" ", el("a", { href: `#/nodes/${encodeURIComponent(node)}` }, node), " for ", since(at)]),
  ];
}

function rejected(reasons) {
  const told = Object.entries(reasons);
  if (told.length === 0) return mark("good", "nothing");
  return [
    mark(
      "fair",
      count(
        told.reduce((sum, [, number]) => sum + number, 0),
        "frame",
      ),
    ),
    ` ${told.map(([why, number]) => `${why}: ${number}`).join(", ")}`,
  ];
}

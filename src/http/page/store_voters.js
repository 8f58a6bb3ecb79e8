// The members of the store: their roles, and the entries that each lacks; and the size of the store.

import { announce } from "./announce.js";
import { follow } from "./api.js";
import { cell, el, facts, rowHead, show, table } from "./dom.js";
import { count, duration, hrefOf, mark, severity, size, toneOfNode } from "./format.js";
import { onStore } from "./store_status.js";

const COLUMNS = ["State", "Node", "Role", ["Lag", "number"], "ID"];
/** Milliseconds without contact after which a member counts as unreachable for the leader. */
const UNREACHED = 5000;
/** Entries that a member may lack without being reported: some seconds of writes. */
const MAX_LAG = 5000;
/** Parts of the limit from which the size of the store is a warning. */
const NEARLY_FULL = 0.8;

/** Shows the members until the returned function is called. */
export function voters(main) {
  const body = el("tbody", { role: "rowgroup" });
  const list = table("Members of the store", "voters", COLUMNS);
  list.append(body);
  const sections = el("div", { class: "agent" });
  main.append(list, sections);
  let states = null;
  let store = null;
  /** Reachability of the nodes, as the agent sees it: a member that is lost lacks nothing until the next write. */
  let reaches = new Map();

  function draw() {
    if (store === null) return;
    const { Members: members, Leader: leader } = store;
    const described = members.map((member) => ({ member, ...describe(member, leader, reaches.get(member.Node)) }));
    described.sort((a, b) => severity(a.tone) - severity(b.tone) || (a.member.Node < b.member.Node ? -1 : 1));
    show(body, described.map(row));
    show(main.querySelector(".overview"), summary(store, described));
    show(sections, contents(store), log(store));
    const now = new Map(described.map(({ member, word }) => [member.Node, word]));
    if (states)
      announce(
        [...now].filter(([node, word]) => states.get(node) !== word).map(([node, word]) => `${node} is ${word}`),
      );
    states = now;
  }

  const stops = [
    onStore((state) => {
      store = state;
      draw();
    }),
    follow("watch/muster/nodes", ({ Members: nodes }) => {
      reaches = new Map(nodes.map(({ Name: name, Muster: { Reach: reach } }) => [name, reach]));
      draw();
    }),
  ];
  return () => stops.forEach((stop) => stop());
}

/** The role of a member, and its state with a tone. */
function describe({ Node: node, Voter: isVoter, Lag: lag, UnreachedMilliseconds: unreached }, leader, reach = "alive") {
  const role = node === leader ? "leader" : isVoter ? "voter" : "learner";
  if (reach !== "alive") return { role, tone: toneOfNode(reach), word: reach };
  if (unreached !== null && unreached > UNREACHED) return { role, tone: "critical", word: "unreachable" };
  if (lag === null || leader === null) return { role, tone: "neutral", word: "unknown" };
  return lag > MAX_LAG ? { role, tone: "warning", word: "behind" } : { role, tone: "ok", word: "up to date" };
}

function row({ member, role, tone, word }) {
  const { ID: id, Node: node, Lag: lag, UnreachedMilliseconds: unreached } = member;
  const contact = word === "unreachable" && `for ${duration(Math.floor(unreached / 1000))}`;
  return el(
    "tr",
    { role: "row" },
    cell("state", "State", mark(tone, word), " ", contact && el("span", { class: "detail" }, contact)),
    rowHead(node, hrefOf("nodes", node)),
    cell("role", "Role", role),
    cell("number", "Lag", word === "unknown" || lag === null ? "" : lag === 1 ? "1 entry" : `${lag} entries`),
    cell("id", "ID", el("code", {}, id)),
  );
}

function summary({ Leader: leader, Members: members }, described) {
  const voters = members.filter(({ Voter: isVoter }) => isVoter).length;
  const faults = described.filter(({ tone }) => tone === "critical").length;
  return [
    leader ? ["leader ", el("b", {}, leader)] : mark("critical", "no leader"),
    ` · ${count(voters, "voter")}`,
    members.length > voters && ` · ${count(members.length - voters, "learner")}`,
    faults > 0 && [" · ", mark("critical", `${faults} not reachable`)],
  ];
}

function contents({ Keys: keys, Octets: octets, MaxOctets: limit, Revision: revision }) {
  const part = limit > 0 ? octets / limit : 0;
  const tone = part >= 1 ? "critical" : "warning";
  const percent = `${Math.floor(part * 100)} %`;
  return facts("Contents", [
    ["Keys", String(keys)],
    [
      "Size",
      limit > 0
        ? [`${size(octets)} of ${size(limit)}, `, part >= NEARLY_FULL ? mark(tone, percent) : percent]
        : size(octets),
    ],
    ["Revision", String(revision)],
  ]);
}

function log({ ClusterID: id, Term: term, LastLog: last, Applied: applied, Node: node }) {
  return facts("Log", [
    ["Cluster", id ? el("code", {}, id) : mark("critical", "not founded, or no voter can be reached")],
    ["Term", String(term)],
    ["Last entry", String(last)],
    ["Applied", applied < last ? `${applied}, ${last - applied} behind the last entry` : String(applied)],
    ["Seen by", el("a", { href: hrefOf("nodes", node) }, node)],
  ]);
}

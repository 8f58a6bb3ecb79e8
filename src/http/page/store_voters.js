// The members of the store: their roles, and the entries that each lacks; and the size of the store.

import { announce } from "./announce.js";
import { cell, el, facts, rowHead, show, table } from "./dom.js";
import { count, duration, hrefOf, mark, severity, size } from "./format.js";
import { describeMember, onStore } from "./store_status.js";

const COLUMNS = ["State", "Node", "Role", ["Lag", "number"], "ID"];
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
  return onStore((store) => {
    if (store === null) return;
    const { Members: members, Leader: leader } = store;
    const described = members.map((member) => ({ member, ...describeMember(member, leader) }));
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
  });
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
    cell("number", "Lag", lag === null ? "" : lag === 1 ? "1 entry" : `${lag} entries`),
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
    faults > 0 && [" · ", mark("critical", `${faults} unreachable`)],
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

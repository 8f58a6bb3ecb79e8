// The summary line above a list: numbers of healthy and unhealthy items.

import { el } from "./dom.js";
import { count, health, isProblem, mark, severity, toneOfCheck, toneOfInstance } from "./format.js";

/** The line for all services and, once the agent's own state is known, the nodes. */
export function servicesOverview(summaries, members) {
  if (summaries.length === 0) return [];
  const tones = { ok: 0, warning: 0, critical: 0, neutral: 0 };
  for (const summary of summaries) tones[health(summary).tone] += 1;
  const parts = [
    el("span", {}, `${tones.ok} of ${count(summaries.length, "service")} healthy`),
    tones.critical > 0 && mark("critical", `${tones.critical} without a healthy instance`),
    tones.warning > 0 && mark("warning", `${tones.warning} degraded`),
    tones.neutral > 0 && mark("neutral", `${tones.neutral} held`),
    members && el("span", {}, el("a", { href: "#/nodes" }, nodes(members)), unreachable(members)),
  ];
  return separated(parts);
}

/**
 * The line for all nodes. `members` counts them by reachability; `diverging` of them have another view of the cluster.
 * `external` lists external nodes.
 */
export function nodesOverview(members, diverging, external) {
  const failing = external.filter(({ Status: status }) => isProblem(toneOfCheck(status))).length;
  const parts = [
    el("span", {}, nodes(members), unreachable(members)),
    members.restarting > 0 && mark("warning", `${members.restarting} restarting`),
    members.suspect > 0 && mark("warning", `${members.suspect} suspect`),
    diverging > 0 && mark("warning", `${diverging} with a different view`),
    members.left > 0 && mark("neutral", `${members.left} left`),
    external.length > 0 && el("span", {}, count(external.length, "external node")),
    failing > 0 && mark("warning", `${failing} of them failing`),
  ];
  return separated(parts);
}

/** The line for the instances of a service or a node: how many are in each state, the most severe first. */
export function instancesOverview(instances) {
  if (instances.length === 0) return [];
  const states = {};
  for (const { State: state } of instances) states[state] = (states[state] ?? 0) + 1;
  const entries = Object.entries(states).map(([state, number]) => ({ state, number, tone: toneOfInstance(state) }));
  entries.sort((a, b) => severity(a.tone) - severity(b.tone));
  const marks = entries.map(({ state, number, tone }) => mark(tone, `${number} ${state}`));
  return separated([el("span", {}, count(instances.length, "instance")), ...marks]);
}

/** A node that left the cluster does not count. */
function nodes(members) {
  const number = Object.entries(members).reduce((sum, [reach, more]) => (reach === "left" ? sum : sum + more), 0);
  return count(number, "node");
}

function unreachable({ gone = 0, held = 0 }) {
  return gone + held > 0 && [", ", mark("critical", `${gone + held} unreachable`)];
}

function separated(parts) {
  const shown = parts.filter(Boolean);
  return shown.flatMap((part, at) => (at === 0 ? [part] : [" · ", part]));
}

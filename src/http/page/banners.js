// The state of the connection, and the warnings above every part: stale data, no address, a partition, file errors, zones that
// validators refuse, a store without a leader or space, another version.

import { retry, token, watchConnection } from "./api.js";
import { el, message, show } from "./dom.js";
import { count, mark, since, size } from "./format.js";
import { onStatus } from "./status.js";
import { onStore } from "./store_status.js";
import { askForToken } from "./token.js";

/** A tone and words for each state of the connection. */
const STATES = {
  connecting: ["neutral", "connecting"],
  live: ["ok", "live"],
  lost: ["critical", "stale"],
  denied: ["critical", "no token"],
  refused: ["critical", "refused"],
};

/** Zones with errors that have a banner of their own; one more banner counts the others. */
const MAX_ZONES = 3;

const banners = document.getElementById("banners");
let connection = { state: "connecting" };
/** The agent's state, and its version when the page was loaded. */
let agent = null;
let loadedVersion = null;
/** The state of the store; `null` if there is none. */
let store = null;

/** Shows the banners from now on. */
export function showBanners() {
  onStatus((status) => {
    agent = status;
    loadedVersion ??= agent.Muster.Version;
    draw();
  });
  onStore((state) => {
    store = state;
    draw();
  });
  watchConnection((now) => {
    const isNewlyDenied = now.state === "denied" && connection.state !== "denied";
    connection = now;
    draw();
    if (isNewlyDenied) askForToken(token() ? now.reason : "");
  });
}

function draw() {
  const status = document.getElementById("connection");
  status.dataset.state = connection.state;
  show(status, mark(...STATES[connection.state]));
  if (agent) {
    const { NodeName: name, Datacenter: site } = agent.Config;
    show(document.getElementById("agent-name"), el("b", {}, name), ` ${site}`);
  }
  show(
    banners,
    stale(),
    agent && [noAddress(agent.Muster), partition(agent.Muster), fileErrors(agent.Muster), ...zones(agent.Muster)],
    store && [noLeader(store), full(store)],
    agent && otherVersion(agent.Muster),
  );
}

function banner(tone, word, text, button) {
  const [action, label] = button ?? [];
  const control = action && el("button", { type: "button", "data-action": action }, label);
  return el("div", { class: `banner ${tone}` }, el("p", {}, mark(tone, word), " ", text), control);
}

function stale() {
  const { state, reason, lost } = connection;
  if (state === "lost") {
    const at = el("time", { datetime: lost.toISOString() }, lost.toLocaleTimeString(undefined, { hour12: false }));
    const text = ["The data is from ", at, `: the agent ${reason}. Retrying.`];
    return banner("critical", "Stale", text, ["retry", "Retry now"]);
  }
  const text = ["The agent rejects the request: ", message(reason ?? "")];
  if (state === "denied") return banner("critical", "No access", text, ["token", "Enter a token"]);
  if (state === "refused") return banner("critical", "No data", text);
  return null;
}

function partition({ Partitioned: began }) {
  const text = [
    "More than half of the other nodes have been unreachable for ",
    since(began),
    ". This node may be the one that is cut off. The instances of unreachable nodes are answered as last known.",
  ];
  return began && banner("warning", "Partition", text);
}

function noAddress({ AddressProblem: problem }) {
  return problem && banner("warning", "Address", message(problem));
}

function fileErrors({ Files: folders }) {
  // An older agent reports no folders.
  const errors = ({ Problems: all, MoreProblems: more }) => all.filter((one) => one.Severity === "error").length + more;
  const number = (folders ?? []).reduce((sum, folder) => sum + errors(folder), 0);
  const text = `${count(number, "error")} in files of this node. The last valid version of each file stays in service. `;
  return number > 0 && banner("warning", "Files", [text, el("a", { href: "#/agent" }, "Show errors")]);
}

function zones({ ZoneProblems: all }) {
  const errors = (all ?? []).filter((problem) => problem.Severity === "error");
  const shown = errors.slice(0, MAX_ZONES).map(({ Message: text, Hint: hint }) => message(`${text} (${hint})`));
  const more = errors.length - shown.length;
  if (more > 0) shown.push(message(`${count(more, "further problem")} of zones: \`muster status\` shows all.`));
  return shown.map((text) => banner("critical", "Zone", text));
}

function noLeader({ Leader: leader }) {
  const text = "The store has no leader: reads and writes of keys wait. DNS and discovery are not affected. ";
  return leader === null && banner("critical", "No leader", [text, el("a", { href: "#/store" }, "Show the voters")]);
}

function full({ Octets: octets, MaxOctets: limit }) {
  const text = `The store holds ${size(octets)} of ${size(limit)}: writes are refused until keys are deleted.`;
  return limit > 0 && octets >= limit && banner("critical", "Store full", text);
}

function otherVersion({ Version: current }) {
  const text = `The agent runs version ${current}; this page is from version ${loadedVersion}.`;
  return current !== loadedVersion && banner("warning", "New version", text, ["reload", "Reload"]);
}

banners.addEventListener("click", (event) => {
  const { action } = event.target.dataset;
  if (action === "retry") retry();
  if (action === "token") askForToken(connection.reason);
  if (action === "reload") location.reload();
});

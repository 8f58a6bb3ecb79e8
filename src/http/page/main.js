// The page: which part is shown, how to get about in it, and whether what it shows is current.
//
// The address says it all: `#/services`, `#/services/web`, `#/nodes`, `#/nodes/host-a`, `#/events`, `#/agent`, and after a
// `?` what a list is narrowed to. A part is a function that shows something in `<main>` and returns how to stop it.

import { agent } from "./agent.js";
import { el, show } from "./dom.js";
import { events } from "./events.js";
import { explain } from "./explain.js";
import { follow, retry, token, watchLiveness } from "./live.js";
import { nodes } from "./nodes.js";
import { services } from "./services.js";
import { askForToken } from "./token.js";
import { count, mark, since, tick } from "./words.js";

const main = document.getElementById("main");
const PARTS = {
  services: { title: "Services", list: services, one: explain },
  nodes: { title: "Nodes", list: nodes, one: explain },
  events: { title: "Events", list: events },
  agent: { title: "Agent", list: agent },
};

/** What is shown: its address, its part, the name of one thing in it, and how the list is narrowed. */
let here = null;
/** Whether the entry before in the history is the list that this thing stands in. */
let cameFromList = false;
/** By part: the address of its list as it was left. */
const left = {};
let stop = () => {};

function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [part, ...rest] = path.split("/");
  const known = Object.hasOwn(PARTS, part) ? part : "services";
  const text = rest.join("/");
  let name = text;
  try {
    name = decodeURIComponent(text);
  } catch {
    // Somebody wrote it by hand: as it stands.
  }
  return { hash, part: known, name: PARTS[known].one ? name : "", query: new URLSearchParams(query) };
}

function go() {
  const before = here;
  here = parse(location.hash);
  const { part, name, query } = here;
  const { title, list, one } = PARTS[part];
  if (before && !before.name) left[before.part] = before.hash;
  const sameList = before?.part === part;
  cameFromList = sameList && !before.name && name !== "";
  stop();
  const heading = el("h1", { tabindex: "-1" }, name || title);
  main.replaceChildren(el("div", { class: "head" }, heading));
  document.title = `${name || title} – muster`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.part === part) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  // The first thing that is shown leaves the focus where a page begins.
  if (before) {
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  const ready = () => {
    const away = sameList && before.name && `#/${part}/${encodeURIComponent(before.name)}`;
    if (away && document.activeElement === heading) main.querySelector(`a[href="${CSS.escape(away)}"]`)?.focus();
  };
  stop = name ? one(main, part, name) : list(main, query, narrow, ready);
}

/** Keeps in the address what the list is narrowed to. */
function narrow(query) {
  const text = query.toString();
  here.hash = `#/${here.part}${text ? `?${text}` : ""}`;
  history.replaceState(null, "", here.hash);
}

/** From one thing back to the list that it stands in. */
function back() {
  if (!here.name) return;
  if (cameFromList) history.back();
  else location.hash = left[here.part] ?? `#/${here.part}`;
}

addEventListener("hashchange", go);

document.getElementById("skip").addEventListener("click", () => main.querySelector("h1")?.focus());

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const box = main.querySelector("input[type=search]");
  const typing = event.target.matches?.("input, textarea");
  if (event.key === "/" && !typing && box) {
    event.preventDefault();
    box.focus();
    box.select();
  } else if (event.key === "Escape" && !typing) {
    back();
  } else if (["ArrowDown", "ArrowUp", "Home", "End"].includes(event.key)) {
    move(event, box);
  }
});

/** Arrows go from row to row, as Tab does from link to link. */
function move(event, box) {
  const links = [...main.querySelectorAll("a.row")].filter((link) => !link.closest("[hidden]"));
  const at = links.indexOf(document.activeElement);
  const inBox = document.activeElement === box;
  const last = links.length - 1;
  if (links.length === 0 || (inBox ? event.key !== "ArrowDown" : at < 0 && !["ArrowDown", "ArrowUp"].includes(event.key))) {
    return;
  }
  if (at < 0 && !inBox && document.activeElement.matches("a, button, summary, input")) return;
  const to = { ArrowDown: Math.min(at + 1, last), ArrowUp: at - 1, Home: 0, End: last }[event.key];
  event.preventDefault();
  if (to < 0) box?.focus();
  else links[to].focus();
}

const banners = document.getElementById("banners");
let liveness = { state: "connecting" };
/** Since when, if it is; and how many problems files of the node have. */
let partitioned = null;
let problems = 0;
/** The agent's version when the page was loaded, and now. */
let version = null;
let newer = null;

function warn() {
  const shown = [];
  const { state, why, lost } = liveness;
  if (state === "lost") {
    const at = el("time", { datetime: lost.toISOString() }, lost.toLocaleTimeString(undefined, { hour12: false }));
    const text = el("p", {}, mark("bad", "Not current"), " since ", at, `: the agent ${why}. Trying again.`);
    shown.push(el("div", { class: "banner bad", "data-banner": "lost" }, text, el("button", { type: "button", "data-do": "retry" }, "Try now")));
  } else if (state === "denied" || state === "refused") {
    const text = el("p", {}, mark("bad", "Not shown"), ` The agent refuses: ${why}`);
    const button = state === "denied" ? el("button", { type: "button", "data-do": "token" }, "Enter a token") : null;
    shown.push(el("div", { class: "banner bad", "data-banner": state }, text, button));
  }
  if (partitioned) {
    const text = el("p", {}, mark("fair", "Partition"), " More than half of the other nodes are out of reach, for ", since(partitioned), ": the fault may be here. Their instances are answered as last known.");
    shown.push(el("div", { class: "banner fair", "data-banner": "partition" }, text));
  }
  if (problems > 0) {
    const text = el("p", {}, mark("fair", "Files"), ` ${count(problems, "problem")} in files of this node; what was good before is in service. `, el("a", { href: "#/agent" }, "Which ones"));
    shown.push(el("div", { class: "banner fair", "data-banner": "files" }, text));
  }
  if (newer) {
    const text = el("p", {}, mark("fair", "Another version"), ` The agent is ${newer} now, this page is of ${version}.`);
    shown.push(el("div", { class: "banner fair", "data-banner": "version" }, text, el("button", { type: "button", "data-do": "reload" }, "Load it again")));
  }
  show(banners, shown);
  const words = {
    connecting: ["held", "connecting"],
    live: ["good", "live"],
    lost: ["bad", "not current"],
    denied: ["bad", "no token"],
    refused: ["bad", "refused"],
  };
  const status = document.getElementById("liveness");
  status.dataset.state = state;
  show(status, mark(...words[state]));
}

banners.addEventListener("click", (event) => {
  const what = event.target.dataset.do;
  if (what === "retry") retry();
  if (what === "token") askForToken(liveness.why);
  if (what === "reload") location.reload();
});

go();
follow("watch/agent/self", (self) => {
  const { NodeName: node, Datacenter: site, Version: now } = self.Config;
  version ??= now;
  newer = now === version ? null : now;
  show(document.getElementById("who"), el("b", {}, node), ` ${site}`);
  partitioned = self.Muster.Partitioned;
  const errors = ({ Problems: all, MoreProblems: more }) => all.filter((one) => one.Severity === "error").length + more;
  problems = (self.Muster.Files ?? []).reduce((sum, folder) => sum + errors(folder), 0);
  warn();
});
watchLiveness((now) => {
  const denied = now.state === "denied" && liveness.state !== "denied";
  liveness = now;
  warn();
  if (denied) askForToken(token() ? now.why : "");
});
setInterval(tick, 1000);

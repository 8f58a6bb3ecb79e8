// The page: which part is shown, and how to get about in it.
//
// The address says it all: `#/services`, `#/services/web`, `#/nodes`, `#/nodes/host-a`, `#/events`, `#/agent`, and after a
// `?` what a list is narrowed to. A part is a function that shows something in `<main>` and returns how to stop it.

import { agent } from "./agent.js";
import { watch } from "./banners.js";
import { el } from "./dom.js";
import { events } from "./events.js";
import { explain } from "./explain.js";
import { nodes } from "./nodes.js";
import { services } from "./services.js";
import { tick } from "./words.js";

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

/** Arrows go from row to row, as Tab does from link to link; elsewhere these keys do what they always do. */
function move(event, box) {
  const links = [...main.querySelectorAll("a.row")].filter((link) => !link.closest("[hidden]"));
  const focused = document.activeElement;
  const at = links.indexOf(focused);
  const begins = event.key === "ArrowDown" && (focused === box || !focused.matches("a, button, summary, input"));
  if (links.length === 0 || (at < 0 && !begins)) return;
  event.preventDefault();
  const last = links.length - 1;
  const to = { ArrowDown: Math.min(at + 1, last), ArrowUp: at - 1, Home: 0, End: last }[event.key];
  (links[to] ?? box)?.focus();
}

go();
watch();
setInterval(tick, 1000);

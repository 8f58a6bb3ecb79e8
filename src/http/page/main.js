// The entry point: routes addresses to the parts of the page, and handles the keyboard.
//
// The address holds the whole state: `#/services`, `#/services/web`, `#/nodes`, `#/nodes/host-a`, `#/store`, `#/store/keys/app/`,
// `#/events`, `#/agent`, and the filter of a list after a `?`. A part is a function that renders into `<main>` and returns a
// function that stops it.

import { agent } from "./agent.js";
import { showBanners } from "./banners.js";
import { el } from "./dom.js";
import { events } from "./events.js";
import { explain } from "./explain.js";
import { hrefOf, tick } from "./format.js";
import { nodes } from "./nodes.js";
import { services } from "./services.js";
import { headingOf, store, upFrom } from "./store.js";
import { storeHref } from "./store_names.js";
import { onStore } from "./store_status.js";

const main = document.getElementById("main");
const PARTS = {
  services: { title: "Services", list: services, detail: explain },
  nodes: { title: "Nodes", list: nodes, detail: explain },
  store: {
    title: "Store",
    list: (main, ...more) => store(main, "", ...more),
    detail: (main, _, ...more) => store(main, ...more),
    heading: headingOf,
    up: upFrom,
    href: (name) => storeHref(...name.split(/\/(.*)/s)),
  },
  events: { title: "Events", list: events },
  agent: { title: "Agent", list: agent },
};

/** The current route: its hash, its part, the name of one item in the part, and the filter of the list. */
let route = null;
/** Whether the previous history entry is the list that the current item was opened from. */
let cameFromList = false;
/** The last hash of each part's list. */
const lastList = {};
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
    // An invalid escape in an address typed by hand: use the text literally.
  }
  return { hash, part: known, name: PARTS[known].detail ? name : "", query: new URLSearchParams(query) };
}

function navigate() {
  const previous = route;
  route = parse(location.hash);
  const { part, name, query } = route;
  const { title, list, detail, heading: headingOf, href = (name) => hrefOf(part, name) } = PARTS[part];
  if (previous && !previous.name) lastList[previous.part] = previous.hash;
  const isSamePart = previous?.part === part;
  cameFromList = isSamePart && !previous.name && name !== "";
  stop();
  const heading = el("h1", { tabindex: "-1" }, headingOf?.(name) ?? (name || title));
  main.replaceChildren(el("div", { class: "head" }, heading, el("p", { class: "overview" })));
  document.title = `${heading.textContent} – muster`;
  for (const link of document.querySelectorAll("header nav a")) {
    if (link.dataset.part === part) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  // The first view leaves the focus at the start of the document.
  if (previous) {
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  const onReady = () => {
    const opened = isSamePart && previous.name && href(previous.name);
    if (opened && document.activeElement === heading) main.querySelector(`a.row[href="${CSS.escape(opened)}"]`)?.focus();
  };
  stop = name ? detail(main, part, name, query, onFilter, onReady) : list(main, query, onFilter, onReady);
}

/** Keeps the filter in the address. */
function onFilter(query) {
  const text = query.toString();
  const [path] = route.hash.split("?");
  route.hash = `${path || `#/${route.part}`}${text ? `?${text}` : ""}`;
  history.replaceState(null, "", route.hash);
}

/** Returns from an item to its list. */
function back() {
  if (!route.name) return;
  const { up } = PARTS[route.part];
  if (up) location.hash = up(route.name);
  else if (cameFromList) history.back();
  else location.hash = lastList[route.part] ?? `#/${route.part}`;
}

addEventListener("hashchange", navigate);

document.getElementById("skip").addEventListener("click", () => main.querySelector("h1")?.focus());

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const box = main.querySelector("input[type=search]");
  const isTyping = event.target.matches?.("input, textarea");
  if (event.key === "/" && !isTyping && box) {
    event.preventDefault();
    box.focus();
    box.select();
  } else if (event.key === "Escape" && !isTyping) {
    back();
  } else if (["ArrowDown", "ArrowUp", "Home", "End"].includes(event.key)) {
    move(event, box);
  }
});

/** Arrow keys move from row to row; outside the list they keep their usual meaning. */
function move(event, box) {
  const links = [...main.querySelectorAll("a.row")].filter((link) => !link.closest("[hidden]"));
  const focused = document.activeElement;
  const at = links.indexOf(focused);
  const entersList = event.key === "ArrowDown" && (focused === box || !focused.matches("a, button, summary, input"));
  if (links.length === 0 || (at < 0 && !entersList)) return;
  event.preventDefault();
  const last = links.length - 1;
  const to = { ArrowDown: Math.min(at + 1, last), ArrowUp: at - 1, Home: 0, End: last }[event.key];
  (links[to] ?? box)?.focus();
}

onStore((store) => (document.getElementById("store-link").hidden = store === null));
navigate();
showBanners();
setInterval(tick, 1000);

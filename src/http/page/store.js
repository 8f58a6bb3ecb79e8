// The part "Store": voters, keys, sessions and leases.
//
// Addresses: `#/store` shows the voters, `#/store/keys/PREFIX` one level of keys, `#/store/key/KEY` one key, `#/store/sessions` and
// `#/store/leases` those.

import { el } from "./dom.js";
import { key } from "./store_key.js";
import { keys } from "./store_keys.js";
import { folderOf, literal, storeHref } from "./store_names.js";
import { leases, sessions } from "./store_sessions.js";
import { onStore } from "./store_status.js";
import { voters } from "./store_voters.js";

const VIEWS = {
  "": { title: "Store", link: "Voters", show: voters },
  keys: { title: "Keys", link: "Keys", show: keys },
  key: { title: "Key", show: key },
  sessions: { title: "Sessions", link: "Sessions", show: sessions },
  leases: { title: "Leases", link: "Leases", show: leases },
};

/** Splits the name in the address into a view and the rest: `keys/app/` is the view `keys` of `app/`. */
function parse(name) {
  const [view] = name.split("/", 1);
  return Object.hasOwn(VIEWS, view) ? { view, rest: name.slice(view.length + 1) } : { view: "", rest: "" };
}

/** The heading of a view. */
export function headingOf(name) {
  const { view, rest } = parse(name);
  return view === "key" && rest ? literal(rest) : VIEWS[view].title;
}

/** The address that a view was opened from. */
export function upFrom(name) {
  const { view, rest } = parse(name);
  if (view === "" || rest === "") return "#/store";
  return storeHref("keys", folderOf(rest));
}

/** Shows a view until the returned function is called. */
export function store(main, name, ...more) {
  const { view, rest } = parse(name);
  const shown = view === "key" ? "keys" : view;
  const links = Object.entries(VIEWS)
    .filter(([, { link }]) => link)
    .map(([name, { link }]) => {
      const href = name === "keys" ? storeHref(name, "") : name ? storeHref(name) : "#/store";
      return el("li", {}, el("a", { href, "aria-current": name === shown ? "page" : null }, link));
    });
  const nav = el("nav", { "aria-label": "Store", class: "views" }, el("ul", {}, links));
  const without = el(
    "p",
    { hidden: true },
    "This cluster has no store. ",
    el("code", {}, "store.voters"),
    " names the nodes that hold one.",
  );
  main.append(nav, without);
  let stop = null;
  const begin = (state) => {
    nav.hidden = state === null;
    without.hidden = state !== null;
    if (state !== null) stop ??= VIEWS[view].show(main, rest, ...more);
  };
  const stopStatus = onStore(begin);
  return () => {
    stopStatus();
    stop?.();
  };
}

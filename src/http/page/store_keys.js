// One level of keys: the folders and keys below a prefix. Values are not requested.

import { el, cell, rowHead, show, table } from "./dom.js";
import { filterBar } from "./filter.js";
import { Pages } from "./pages.js";
import { poll } from "./poll.js";
import { SEPARATOR, folderOf, foldersOf, literal, pathOf, storeHref } from "./store_names.js";
import { handleRefusals, refusal } from "./store_refusal.js";

/** Milliseconds between two lists, at least: each change below the prefix causes one. */
const INTERVAL = 1000;

/** Shows the level below `prefix` until the returned function is called. */
export function keys(main, prefix, query, onFilter, onReady) {
  const notice = el("div", { class: "notice" });
  const body = el("tbody", { role: "rowgroup" });
  const list = table(prefix ? `Keys that begin with ${literal(prefix)}` : "Keys", "keys-list", ["Key", "Kind"]);
  list.append(body);
  const rows = new Pages(
    body,
    (name) => name,
    (name) => row(name, prefix),
    "name",
  );
  const empty = prefix ? `No key begins with ${literal(prefix)}` : "No keys yet.";
  const filter = filterBar(main, query, { rows, noun: "name", empty, text: (name) => name, onFilter });
  main.append(crumbs(prefix), notice, list, rows.below);
  handleRefusals(notice);
  const path = pathOf(prefix);
  if (path === null) {
    show(
      notice,
      el("p", { class: "note" }, "A browser cannot request this prefix. Use ", el("code", {}, "muster kv list"), "."),
    );
    return () => {};
  }
  let isFirst = true;
  const onAnswer = (answer) => {
    const isDenied = answer.status === 403;
    show(notice, refusal(answer), isDenied && el("div", { class: "open" }));
    if (isDenied) notice.querySelector(".open").replaceWith(openForm(prefix));
    // A refusal leaves the last list, unless the token has no access to it.
    if (answer.status !== 200 && answer.status !== 404 && !isDenied) return;
    const names = answer.data ?? [];
    rows.update(names, isFirst);
    if (isDenied) rows.filter(() => false);
    else filter.update(names);
    if (isFirst) onReady();
    isFirst = false;
  };
  return poll(`kv/${path}?keys&separator=${encodeURIComponent(SEPARATOR)}`, onAnswer, INTERVAL);
}

/** Links to the folders above. */
export function crumbs(name) {
  const folders = foldersOf(name);
  const items = folders.map((folder, at) => {
    const text = literal(folder.slice(folders[at - 1]?.length ?? 0));
    return el(
      "li",
      {},
      folder === name
        ? el("span", { "aria-current": "page" }, text)
        : el("a", { href: storeHref("keys", folder) }, text),
    );
  });
  const root = el(
    "li",
    {},
    name ? el("a", { href: storeHref("keys", "") }, "All keys") : el("span", { "aria-current": "page" }, "All keys"),
  );
  return el("nav", { "aria-label": "Folders", class: "crumbs" }, el("ol", {}, root, items));
}

function row(name, prefix) {
  // A key with the name of the folder is in the folder.
  const isFolder = name.endsWith(SEPARATOR) && name !== prefix;
  const isOwn = name === prefix && name.endsWith(SEPARATOR);
  const above = isOwn ? folderOf(prefix) : prefix.slice(0, prefix.lastIndexOf(SEPARATOR) + 1);
  return el(
    "tr",
    { role: "row" },
    rowHead(literal(name.slice(above.length)), storeHref(isFolder ? "keys" : "key", name)),
    cell("state kind", "Kind", isFolder ? "folder" : isOwn ? "key with the name of the folder" : "key"),
  );
}

/** A form that opens a prefix, for a token that may not list the keys above. */
function openForm(prefix) {
  const box = el("input", { id: "open", type: "text", autocomplete: "off", spellcheck: "false", required: true });
  box.value = prefix;
  const form = el(
    "form",
    { class: "open" },
    el("label", { for: "open" }, "Prefix that the token may read"),
    box,
    el("button", { type: "submit" }, "Open"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = storeHref("keys", box.value);
  });
  return form;
}

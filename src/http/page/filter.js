// The filter above a list: words that must all occur in an item, and a switch between all items and those with problems, in a
// list that can have problems.

import { el } from "./dom.js";
import { count } from "./format.js";

/**
 * Adds a search box, and two buttons if there is an `isProblem`, to the head of `main`, and hides the `rows` that do not match.
 *
 * `noun` names one item and `empty` is the text of an empty list. `text` returns what of an item is searched, `isProblem`
 * whether the item has a problem. `onFilter` receives the query that belongs in the address.
 */
export function filterBar(main, query, { rows, noun, empty, isProblem = null, text, onFilter }) {
  const box = el("input", {
    type: "search",
    id: "filter",
    placeholder: "Filter",
    autocomplete: "off",
    spellcheck: "false",
    "aria-keyshortcuts": "/",
  });
  box.value = query.get("q") ?? "";
  const all = el("button", { type: "button" }, "All");
  const problems = el("button", { type: "button" }, "Problems");
  const matches = el("p", { class: "matches", role: "status" });
  let onlyProblems = isProblem !== null && query.get("show") === "problems";
  let items = null;

  function apply() {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    all.setAttribute("aria-pressed", String(!onlyProblems));
    problems.setAttribute("aria-pressed", String(onlyProblems));
    if (items === null) return;
    const shown = rows.filter(
      (item) => (!onlyProblems || isProblem(item)) && (words.length === 0 || contains(item, words)),
    );
    all.textContent = `All ${items.length}`;
    if (isProblem) problems.textContent = `Problems ${items.filter(isProblem).length}`;
    const message = describe(shown, words.length > 0);
    if (matches.textContent !== message) matches.textContent = message;
  }

  function describe(shown, hasWords) {
    if (items.length === 0) return empty;
    if (shown === 0 && !hasWords) return `No ${noun} has a problem.`;
    if (shown === 0) return `No ${noun} matches. Press Escape in the box to clear the filter.`;
    return shown < items.length ? `${shown} of ${count(items.length, noun)}` : "";
  }

  function contains(item, words) {
    const searched = text(item).toLowerCase();
    return words.every((word) => searched.includes(word));
  }

  function changed() {
    apply();
    const query = new URLSearchParams();
    if (box.value) query.set("q", box.value);
    if (onlyProblems) query.set("show", "problems");
    onFilter(query);
  }

  box.addEventListener("input", changed);
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    if (box.value === "") box.blur();
    box.value = "";
    changed();
  });
  for (const [button, value] of [
    [all, false],
    [problems, true],
  ]) {
    button.addEventListener("click", () => {
      onlyProblems = value;
      changed();
    });
  }
  const label = el(
    "label",
    { for: "filter", class: "visually-hidden" },
    `Filter: words that must all occur in the ${noun}`,
  );
  const choice =
    isProblem &&
    el("div", { class: "choice", role: "group", "aria-label": `Which ${noun}s to show` }, all, problems);
  main.querySelector(".head").append(el("div", { class: "filter" }, label, box, choice ?? ""), matches);
  apply();
  return {
    /** Applies the filter to the items that the list shows now. */
    update(list) {
      items = list;
      apply();
    },
  };
}

// What a long list is narrowed to: words that each shown row has, and whether something has to be amiss.

import { el } from "./dom.js";
import { count } from "./words.js";

/**
 * Puts a box and two buttons above a list, and hides those of its `rows` that do not fit. `text` is what of an item is
 * looked through, `amiss` whether something is wrong with it, `none` what an empty list says; `narrowed` is told what the
 * address should say.
 */
export function narrowing(main, query, narrowed, rows, noun, none, amiss, text) {
  const box = el("input", {
    type: "search",
    id: "narrow",
    placeholder: "Filter",
    autocomplete: "off",
    spellcheck: "false",
    "aria-keyshortcuts": "/",
  });
  box.value = query.get("q") ?? "";
  const all = el("button", { type: "button" });
  const wrong = el("button", { type: "button" });
  const told = el("p", { class: "told", role: "status" });
  let onlyWrong = query.get("show") === "problems";
  let items = null;

  function apply() {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (item) => (!onlyWrong || amiss(item)) && (words.length === 0 || has(item, words));
    all.setAttribute("aria-pressed", String(!onlyWrong));
    wrong.setAttribute("aria-pressed", String(onlyWrong));
    if (items === null) return;
    const shown = rows.filter(fits);
    all.textContent = `All ${items.length}`;
    wrong.textContent = `Problems ${items.filter(amiss).length}`;
    let text = "";
    if (items.length === 0) text = none;
    else if (shown === 0) text = `No ${noun} fits: Escape in the box clears it.`;
    else if (shown < items.length) text = `${count(shown, noun)} of ${items.length}`;
    if (told.textContent !== text) told.textContent = text;
  }

  function has(item, words) {
    const found = text(item).toLowerCase();
    return words.every((word) => found.includes(word));
  }

  function changed() {
    apply();
    const query = new URLSearchParams();
    if (box.value) query.set("q", box.value);
    if (onlyWrong) query.set("show", "problems");
    narrowed(query);
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
    [wrong, true],
  ]) {
    button.addEventListener("click", () => {
      onlyWrong = value;
      changed();
    });
  }
  all.textContent = "All";
  wrong.textContent = "Problems";
  const label = el("label", { for: "narrow", class: "unseen" }, `Filter: each word has to stand in the ${noun}'s row`);
  main
    .querySelector(".head")
    .append(
      el(
        "div",
        { class: "narrow" },
        label,
        box,
        el("div", { class: "choice", role: "group", "aria-label": "Which are shown" }, all, wrong),
      ),
      told,
    );
  apply();
  return {
    /** The list shows these now. */
    update(list) {
      items = list;
      apply();
    },
  };
}

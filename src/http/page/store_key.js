// One key: its indexes, size and lock; and its value, which is requested when the reader asks for it.

import { get } from "./api.js";
import { el, facts, show } from "./dom.js";
import { mark, size } from "./format.js";
import { poll } from "./poll.js";
import { crumbs } from "./store_keys.js";
import { pathOf, storeHref } from "./store_names.js";
import { handleRefusals, refusal } from "./store_refusal.js";
import { octetsOf, valueOf } from "./store_value.js";

/** Milliseconds between two states, at least. */
const INTERVAL = 500;

/** Shows the key until the returned function is called. */
export function key(main, name) {
  const notice = el("div", { class: "notice" });
  const section = el("div", { class: "agent" });
  const value = el(
    "section",
    { class: "value", "aria-labelledby": "value", hidden: true },
    el("h2", { id: "value" }, "Value"),
  );
  const control = el("p", { class: "buttons" });
  const stale = el("p", { class: "note", role: "status", hidden: true });
  const content = el("div", { class: "content" });
  value.append(control, stale, content);
  main.append(crumbs(name), notice, section, value);
  handleRefusals(main);
  const path = pathOf(name);
  if (path === null) {
    show(
      notice,
      el("p", { class: "note" }, "A browser cannot request this key. Use ", el("code", {}, "muster kv get"), "."),
    );
    return () => {};
  }
  let isStopped = false;
  /** The state of the key; `null` while there is none. */
  let state = null;
  let hasExisted = false;
  /** The index of the value that is shown; `null`: hidden. */
  let shown = null;

  function draw() {
    const isShown = shown !== null;
    const hasChanged = isShown && shown !== state?.ModifyIndex;
    value.hidden = !state && !isShown;
    const label = hasChanged && state ? "Show the new value" : "Show value";
    show(
      control,
      // First, so that the button below the pointer stays the same.
      isShown && el("button", { type: "button", "data-action": "hide" }, "Hide value"),
      state && (!isShown || hasChanged) && el("button", { type: "button", "data-action": "show" }, label),
    );
    const text = state
      ? `The key has changed since. This is the value of index ${shown}.`
      : "The key was deleted. This was its value.";
    stale.hidden = !hasChanged;
    show(stale, hasChanged && text);
    if (!isShown) content.replaceChildren();
  }

  async function request() {
    let answer;
    try {
      answer = await get(`kv/${path}`);
    } catch {
      answer = { status: 503, reason: "The agent does not answer.", data: null };
    }
    if (isStopped) return;
    const [entry] = answer.data ?? [];
    if (entry) {
      shown = entry.ModifyIndex;
      content.replaceChildren(valueOf(octetsOf(entry.Value)));
    } else {
      shown = null;
      content.replaceChildren(refusal(answer) ?? el("p", { class: "note" }, "The key does not exist any more."));
      return;
    }
    draw();
    control.querySelector("button")?.focus();
  }

  control.addEventListener("click", (event) => {
    const { action } = event.target.dataset;
    if (action === "show") request();
    if (action !== "hide") return;
    shown = null;
    draw();
    control.querySelector("button")?.focus();
  });

  const stop = poll(
    `muster/store/key/${path}`,
    (answer) => {
      const isAbsent = answer.status === 404;
      const vanished = hasExisted ? "The key was deleted." : "There is no such key.";
      show(notice, refusal(answer), isAbsent && el("p", { class: "note", role: "status" }, vanished));
      if (answer.status === 200) state = answer.data;
      // Without a leader, the last state stays; without access, nothing does.
      else if (answer.status < 500) state = null;
      if (answer.status === 403) shown = null;
      show(section, state && stateOf(state));
      hasExisted ||= state !== null;
      draw();
    },
    INTERVAL,
  );
  return () => {
    isStopped = true;
    stop();
  };
}

function stateOf(state) {
  const { Octets: octets, Flags: flags, Session: session, LockIndex: locks, Lease: lease, Version: version } = state;
  return facts("State", [
    ["Size of the value", size(octets)],
    ["Flags", String(flags)],
    ["Created at index", String(state.CreateIndex)],
    ["Changed at index", String(state.ModifyIndex)],
    ["Version", String(version)],
    [
      "Lock",
      session
        ? [mark("neutral", "held"), " by session ", el("a", { href: `${storeHref("sessions")}?q=${session}` }, session)]
        : "not held",
    ],
    ["Times locked", String(locks)],
    lease && ["Lease", el("a", { href: `${storeHref("leases")}?q=${lease}` }, lease)],
  ]);
}

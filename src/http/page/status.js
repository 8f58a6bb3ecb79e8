// The state of the agent that serves the page: one stream, which all parts of the page share.

import { follow } from "./api.js";

const listeners = new Set();
let latest = null;
let follows = false;

/** Calls `listener` with the agent's state, now if it is known and on each change, until the returned function is called. */
export function onStatus(listener) {
  listeners.add(listener);
  if (latest) listener(latest);
  if (!follows) {
    follows = true;
    follow("watch/muster/status", (status) => {
      latest = status;
      for (const each of listeners) each(status);
    });
  }
  return () => listeners.delete(listener);
}

// The state of the store: one repeated request, which the navigation, the warnings and the part "Store" share.

import { poll } from "./poll.js";
import { onStatus } from "./status.js";

/** Milliseconds between two requests: the lag of voters changes with each write. */
const INTERVAL = 3000;
const listeners = new Set();
/** The store; `null`: the cluster has none; `undefined`: not known yet. */
let latest;
let follows = false;
let stop = null;

/**
 * Calls `listener` with the state of the store, or `null` if the cluster has none, now if it is known and on each change, until
 * the returned function is called.
 */
export function onStore(listener) {
  listeners.add(listener);
  if (latest !== undefined) listener(latest);
  if (!follows) {
    follows = true;
    onStatus(({ Muster: { Store: hasStore } }) => {
      if (!hasStore) {
        stop?.();
        stop = null;
        publish(null);
      } else {
        stop ??= poll("muster/store", ({ data }) => data && publish(data), INTERVAL);
      }
    });
  }
  return () => listeners.delete(listener);
}

function publish(store) {
  latest = store;
  for (const each of listeners) each(store);
}

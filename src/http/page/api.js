// The client of the API: single requests, and streams of server-sent events, read with `fetch` so that the token is a header.
//
// A browser opens at most six connections to a server. The page therefore keeps at most two open, for the agent's state and for
// the part that is shown, and a tab in the background closes them.

import { setClock } from "./format.js";

/** Milliseconds without data after which a stream is lost. The agent sends data every few seconds. */
const SILENCE = 40_000;
/** Milliseconds between two attempts: the first pause, which doubles, and the longest. */
const PAUSE = [500, 10_000];
/** Milliseconds in the background after which a tab closes its connections. */
const HIDDEN = 30_000;

/** Status codes that a retry does not change, and the state of the stream. */
const REFUSALS = { 400: "refused", 401: "denied", 403: "denied", 404: "refused", 405: "refused" };
const TOKEN = "muster-token";
/** The address of the API, relative to the page: a proxy may put a path before both. */
const API = new URL("../v1/", document.baseURI);

const followed = new Set();
let onConnection = () => {};
let asleep = false;
/** The time from which the data is stale. */
let lost = null;

/** Calls `listener` with the state of the connection, now and on each change. */
export function watchConnection(listener) {
  onConnection = listener;
  report();
}

/** The token of this tab, or `null`. */
export function token() {
  return sessionStorage.getItem(TOKEN);
}

/** Uses this token from now on, or none if it is `null`. */
export function setToken(text) {
  if (text === null) sessionStorage.removeItem(TOKEN);
  else sessionStorage.setItem(TOKEN, text);
  retry();
}

/** Starts all streams again at once. */
export function retry() {
  for (const stream of followed) stream.begin();
}

function headers(more = {}) {
  const current = token();
  return current ? { ...more, "X-Consul-Token": current } : more;
}

/** Requests `/v1/PATH` once; `null` if that fails. */
export async function request(path) {
  try {
    const response = await fetch(new URL(path, API), { headers: headers(), cache: "no-store" });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

/**
 * Requests `/v1/PATH` once. Returns the status, the first line of a refusal, the JSON of a success, and the index to wait at, if
 * there is one. An integer that JavaScript cannot represent is a text.
 */
export async function get(path, signal) {
  const response = await fetch(new URL(path, API), { headers: headers(), cache: "no-store", signal });
  const text = await response.text();
  const { ok, status } = response;
  return {
    status,
    reason: ok ? "" : text.split("\n")[0],
    data: ok ? JSON.parse(text, exact) : null,
    index: response.headers.get("x-consul-index"),
  };
}

/** Keeps the digits of a large integer, in browsers that show them. */
function exact(_, value, context) {
  return typeof value === "number" && !Number.isSafeInteger(value) ? (context?.source ?? value) : value;
}

/**
 * Follows the stream `/v1/PATH` until the returned function is called. `onData` receives the data of each event. A stream of
 * single events `resumes` after the last one; a stream of states begins with the current state.
 */
export function follow(path, onData, resumes = false) {
  return join(new Stream(path, onData, resumes));
}

/**
 * Begins a stream or a poll, whose `state` counts for the connection until the returned function is called. It is ended while the
 * tab is in the background, and begun again for another token.
 */
export function join(stream) {
  followed.add(stream);
  stream.begin();
  return () => {
    followed.delete(stream);
    stream.end();
    report();
  };
}

/** Whether the tab is in the background, where nothing is requested. */
export function isAsleep() {
  return asleep;
}

class Stream {
  /** `connecting`, `live`, `lost`, `denied` or `refused`. */
  state = "connecting";
  /** The predicate of "the agent …" for a lost stream, or the agent's message for a refused one. */
  reason = "";
  #path;
  #onData;
  #resumes;
  #last = null;
  #attempts = 0;
  #timer = 0;
  #abort = null;

  constructor(path, onData, resumes) {
    this.#path = path;
    this.#onData = onData;
    this.#resumes = resumes;
  }

  begin() {
    this.end();
    if (asleep) return;
    // A lost stream stays lost until it is live again.
    if (this.state !== "lost") this.#become("connecting", "");
    this.#abort = new AbortController();
    this.#run(this.#abort.signal);
  }

  end() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#abort = null;
  }

  #become(state, reason) {
    this.state = state;
    this.reason = reason;
    report();
  }

  async #run(signal) {
    try {
      const last = this.#resumes && this.#last !== null ? { "Last-Event-ID": this.#last } : {};
      this.#expectData();
      const accept = { Accept: "text/event-stream", ...last };
      const response = await fetch(new URL(this.#path, API), { headers: headers(accept), cache: "no-store", signal });
      if (signal.aborted) return;
      if (response.status in REFUSALS) {
        const reason = await response.text();
        if (signal.aborted) return;
        this.end();
        this.#become(REFUSALS[response.status], reason.split("\n")[0]);
        return;
      }
      if (!response.ok) throw new Error(`answers ${response.status}`);
      setClock(response.headers.get("date"));
      this.#attempts = 0;
      this.#become("live", "");
      await this.#read(response.body.getReader(), signal);
      throw new Error("closed the connection");
    } catch (error) {
      if (signal.aborted && this.#abort?.signal !== signal) return;
      this.end();
      const [first, longest] = PAUSE;
      const pause = Math.min(longest, first * 2 ** this.#attempts) * (0.75 + Math.random() / 2);
      this.#attempts += 1;
      this.#timer = setTimeout(() => this.begin(), pause);
      this.#become("lost", error.name === "TypeError" ? "does not answer" : error.message);
    }
  }

  /** Closes the connection unless data arrives in time. */
  #expectData() {
    clearTimeout(this.#timer);
    const controller = this.#abort;
    this.#timer = setTimeout(() => controller?.abort(new Error("sends nothing")), SILENCE);
  }

  async #read(reader, signal) {
    const decoder = new TextDecoder();
    let rest = "";
    let data = [];
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal.aborted) return;
      this.#expectData();
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop();
      for (const line of lines.map((line) => line.replace(/\r$/, ""))) {
        if (line === "") {
          if (data.length > 0) this.#onData(JSON.parse(data.join("\n")));
          data = [];
          continue;
        }
        // A comment has no field name. It shows that the stream is alive.
        const [, name, text] = /^([^:]*):? ?(.*)$/.exec(line);
        if (name === "data") data.push(text);
        else if (name === "id") this.#last = text;
      }
    }
  }
}

/** Reports the worst state of streams and polls as the state of the connection. */
export function report() {
  const streams = [...followed];
  const of = (state) => streams.find((stream) => stream.state === state);
  const worst = of("denied") ?? of("refused") ?? of("lost") ?? of("connecting") ?? of("live");
  if (!worst) return;
  if (worst.state === "live") lost = null;
  else if (worst.state === "lost") lost ??= new Date();
  onConnection({ state: worst.state, reason: worst.reason, lost });
}

function sleep() {
  asleep = true;
  for (const stream of followed) stream.end();
}

function wake() {
  asleep = false;
  retry();
}

let timer = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (document.hidden) timer = setTimeout(sleep, HIDDEN);
  else if (asleep) wake();
});
// A page that the browser keeps for the back button closes its connections as well.
addEventListener("pagehide", sleep);
addEventListener("pageshow", (event) => event.persisted && wake());
addEventListener("online", retry);

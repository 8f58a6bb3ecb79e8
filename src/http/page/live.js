// What the agent says, as it says it: streams of server-sent events, read by fetch so that a token goes in a header.
//
// A browser opens six connections to one server. So a page follows two streams at most, the agent's own state and what is
// looked at, and a tab that nobody sees gives its connections back.

import { setClock } from "./words.js";

/** The agent writes something every few seconds. One that is silent for so long is not there any more. */
const SILENCE = 40_000;
/** From one try to the next: the first pause, which doubles, and the longest. */
const PAUSE = [500, 10_000];
/** A tab that is hidden for so long gives its connections back. */
const HIDDEN = 30_000;

/** Answers that are the same however often one asks. */
const REFUSALS = { 400: "refused", 401: "denied", 403: "denied", 404: "refused", 405: "refused" };
const TOKEN = "muster-token";
/** The API as seen from the page, whatever path a proxy puts before both. */
const API = new URL("../v1/", document.baseURI);

const followed = new Set();
/** Who wants to know how the streams stand. */
let watcher = () => {};
let asleep = false;
/** Since when what is shown is not current. */
let lost = null;

/** Has `heard` called with how the streams stand, now and whenever that changes. */
export function watchLiveness(heard) {
  watcher = heard;
  tell();
}

/** The token of this tab. */
export function token() {
  return sessionStorage.getItem(TOKEN);
}

/** Uses another token from now on; `null`: none. */
export function setToken(text) {
  if (text === null) sessionStorage.removeItem(TOKEN);
  else sessionStorage.setItem(TOKEN, text);
  retry();
}

/** Tries at once what waits for its next try. */
export function retry() {
  followed.forEach((stream) => stream.begin());
}

function headers(more = {}) {
  const shown = token();
  return shown ? { ...more, "X-Consul-Token": shown } : more;
}

/** Asks once; `null` where there is no answer to be had. */
export async function ask(path) {
  try {
    const answer = await fetch(new URL(path, API), { headers: headers(), cache: "no-store" });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

/**
 * Follows `/v1/PATH`, a stream, until the function that it returns is called. `heard` gets each event's data, its kind, and
 * whether it is the first since the stream began anew. A stream of single events `resumes` after the last one; one of
 * states begins with the newest.
 */
export function follow(path, heard, resumes = false) {
  const stream = new Stream(path, heard, resumes);
  followed.add(stream);
  stream.begin();
  return () => {
    followed.delete(stream);
    stream.end();
    tell();
  };
}

class Stream {
  /** `connecting`, `live`, `lost`, `denied` or `refused`. */
  state = "connecting";
  /** What the agent does instead: `does not answer`, or why it refuses. */
  why = "";
  #path;
  #heard;
  #resumes;
  #last = null;
  #tries = 0;
  #timer = 0;
  #abort = null;

  constructor(path, heard, resumes) {
    this.#path = path;
    this.#heard = heard;
    this.#resumes = resumes;
  }

  begin() {
    this.end();
    if (asleep) return;
    // Until it is there again, what is lost stays lost.
    if (this.state !== "lost") this.#become("connecting", "");
    this.#abort = new AbortController();
    this.#run(this.#abort.signal);
  }

  end() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#abort = null;
  }

  #become(state, why) {
    this.state = state;
    this.why = why;
    tell();
  }

  async #run(signal) {
    try {
      const last = this.#resumes && this.#last !== null ? { "Last-Event-ID": this.#last } : {};
      this.#watch();
      const accept = { Accept: "text/event-stream", ...last };
      const answer = await fetch(new URL(this.#path, API), { headers: headers(accept), cache: "no-store", signal });
      if (signal.aborted) return;
      if (answer.status in REFUSALS) {
        const why = await answer.text();
        if (signal.aborted) return;
        this.end();
        this.#become(REFUSALS[answer.status], why.split("\n")[0]);
        return;
      }
      if (!answer.ok) throw new Error(`answers ${answer.status}`);
      setClock(answer.headers.get("date"));
      this.#tries = 0;
      this.#become("live", "");
      await this.#read(answer.body.getReader(), signal);
      throw new Error("ended the connection");
    } catch (error) {
      if (signal.aborted && this.#abort?.signal !== signal) return;
      this.end();
      const [first, longest] = PAUSE;
      const pause = Math.min(longest, first * 2 ** this.#tries) * (0.75 + Math.random() / 2);
      this.#tries += 1;
      this.#timer = setTimeout(() => this.begin(), pause);
      this.#become("lost", error.name === "TypeError" ? "does not answer" : error.message);
    }
  }

  /** Gives the connection up when nothing comes. */
  #watch() {
    clearTimeout(this.#timer);
    const controller = this.#abort;
    this.#timer = setTimeout(() => controller?.abort(new Error("says nothing")), SILENCE);
  }

  async #read(reader, signal) {
    const decoder = new TextDecoder();
    let rest = "";
    let event = { kind: "message", data: [] };
    let first = true;
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal.aborted) return;
      this.#watch();
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop();
      for (const line of lines.map((line) => line.replace(/\r$/, ""))) {
        if (line === "") {
          if (event.data.length > 0) {
            this.#heard(JSON.parse(event.data.join("\n")), event.kind, first);
            first = false;
          }
          event = { kind: "message", data: [] };
          continue;
        }
        // A comment has no name, and says that the stream is there.
        const [, name, text] = /^([^:]*):? ?(.*)$/.exec(line);
        if (name === "data") event.data.push(text);
        else if (name === "event") event.kind = text;
        else if (name === "id") this.#last = text;
      }
    }
  }
}

/** The worst of the streams, for the whole page. */
function tell() {
  const streams = [...followed];
  const of = (state) => streams.find((stream) => stream.state === state);
  const worst = of("denied") ?? of("refused") ?? of("lost") ?? of("connecting") ?? of("live");
  if (!worst) return;
  if (worst.state === "live") lost = null;
  else if (worst.state === "lost") lost ??= new Date();
  watcher({ state: worst.state, why: worst.why, lost });
}

let timer = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (document.hidden) {
    timer = setTimeout(() => {
      asleep = true;
      followed.forEach((stream) => stream.end());
    }, HIDDEN);
  } else if (asleep) {
    asleep = false;
    retry();
  }
});
addEventListener("online", retry);

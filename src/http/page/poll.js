// Repeats a request: as a blocking query where responses have an index, else at an interval.
//
// Unlike a stream, every answer of the agent reaches the reader, refusals included: the store may be without a leader, or refuse
// one key, while the agent is well.

import { get, isAsleep, join, report } from "./api.js";

/** Time that a blocking query waits, and the milliseconds after which its connection is lost. */
const WAIT = "30s";
const SILENCE = 40_000;
/** Milliseconds to the next request after a failure of the store, and after a refusal, which only an operator changes. */
const AFTER_FAILURE = 2000;
const AFTER_REFUSAL = 60_000;
/** Milliseconds between two attempts to reach the agent: the first pause, which doubles, and the longest. */
const PAUSE = [500, 10_000];

/**
 * Requests `/v1/PATH` again and again until the returned function is called. `onAnswer` receives each answer of `get`;
 * `interval` is the least number of milliseconds between two of them.
 */
export function poll(path, onAnswer, interval) {
  return join(new Poll(path, onAnswer, interval));
}

class Poll {
  /** `connecting`, `live` or `lost`. */
  state = "connecting";
  /** The predicate of "the agent …" for a lost connection. */
  reason = "";
  #path;
  #onAnswer;
  #interval;
  #attempts = 0;
  #index = null;
  #timer = 0;
  #abort = null;

  constructor(path, onAnswer, interval) {
    this.#path = path;
    this.#onAnswer = onAnswer;
    this.#interval = interval;
  }

  begin() {
    this.end();
    if (isAsleep()) return;
    // The current state, whatever was seen before.
    this.#index = null;
    this.#next();
  }

  end() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#abort = null;
  }

  async #next() {
    const controller = new AbortController();
    this.#abort = controller;
    this.#timer = setTimeout(() => controller.abort(new Error("sends nothing")), SILENCE);
    const mark = this.#path.includes("?") ? "&" : "?";
    const path = this.#index === null ? this.#path : `${this.#path}${mark}index=${this.#index}&wait=${WAIT}`;
    let pause;
    try {
      const answer = await get(path, controller.signal);
      if (this.#abort !== controller) return;
      this.#attempts = 0;
      this.#become("live", "");
      pause = this.#pauseAfter(answer);
      this.#onAnswer(answer);
    } catch (error) {
      if (this.#abort !== controller) return;
      const [first, longest] = PAUSE;
      pause = Math.min(longest, first * 2 ** this.#attempts) * (0.75 + Math.random() / 2);
      this.#attempts += 1;
      this.#index = null;
      this.#become("lost", error.name === "TypeError" ? "does not answer" : error.message);
    }
    // The reader may have ended the poll.
    if (this.#abort !== controller) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#next(), pause);
  }

  #pauseAfter({ status, index }) {
    const isContent = status === 200 || (status === 404 && index !== null);
    this.#index = isContent ? index : null;
    if (isContent) return this.#interval;
    return status >= 500 ? AFTER_FAILURE : AFTER_REFUSAL;
  }

  #become(state, reason) {
    this.state = state;
    this.reason = reason;
    report();
  }
}

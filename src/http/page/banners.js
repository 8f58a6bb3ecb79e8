// Above every part: whether what is shown is current, and what of the agent is not as it should be.

import { el, show } from "./dom.js";
import { follow, retry, token, watchLiveness } from "./live.js";
import { askForToken } from "./token.js";
import { count, mark, since } from "./words.js";

/** How the streams stand: a tone and words. */
const STATES = {
  connecting: ["held", "connecting"],
  live: ["good", "live"],
  lost: ["bad", "not current"],
  denied: ["bad", "no token"],
  refused: ["bad", "refused"],
};

const banners = document.getElementById("banners");
let liveness = { state: "connecting" };
/** What the agent says of itself; its version when the page was loaded. */
let self = null;
let version = null;

/** Shows it from now on. */
export function watch() {
  follow("watch/agent/self", (news) => {
    self = news;
    version ??= self.Config.Version;
    draw();
  });
  watchLiveness((now) => {
    const denied = now.state === "denied" && liveness.state !== "denied";
    liveness = now;
    draw();
    if (denied) askForToken(token() ? now.why : "");
  });
}

function draw() {
  const status = document.getElementById("liveness");
  status.dataset.state = liveness.state;
  show(status, mark(...STATES[liveness.state]));
  if (self) show(document.getElementById("who"), el("b", {}, self.Config.NodeName), ` ${self.Config.Datacenter}`);
  show(banners, notCurrent(), self && [partition(self.Muster), files(self.Muster), otherVersion(self.Config)]);
}

function banner(tone, word, text, button) {
  const [what, label] = button ?? [];
  const press = what ? el("button", { type: "button", "data-do": what }, label) : null;
  return el("div", { class: `banner ${tone}` }, el("p", {}, mark(tone, word), text), press);
}

function notCurrent() {
  const { state, why, lost } = liveness;
  if (state === "lost") {
    const at = el("time", { datetime: lost.toISOString() }, lost.toLocaleTimeString(undefined, { hour12: false }));
    return banner("bad", "Not current", [" since ", at, `: the agent ${why}. Trying again.`], ["retry", "Try now"]);
  }
  const refuses = ` The agent refuses: ${why}`;
  if (state === "denied") return banner("bad", "Not shown", refuses, ["token", "Enter a token"]);
  if (state === "refused") return banner("bad", "Not shown", refuses);
  return null;
}

function partition({ Partitioned: began }) {
  const text = [
    " More than half of the other nodes are out of reach, for ",
    since(began),
    ": the fault may be here. Their instances are answered as last known.",
  ];
  return began && banner("fair", "Partition", text);
}

function files({ Files: folders }) {
  // An agent of a version before has none.
  const errors = ({ Problems: all, MoreProblems: more }) => all.filter((one) => one.Severity === "error").length + more;
  const problems = (folders ?? []).reduce((sum, folder) => sum + errors(folder), 0);
  const text = ` ${count(problems, "problem")} in files of this node; what was good before is in service. `;
  return problems > 0 && banner("fair", "Files", [text, el("a", { href: "#/agent" }, "Which ones")]);
}

function otherVersion({ Version: now }) {
  const text = ` The agent is ${now} now, this page is of ${version}.`;
  return now !== version && banner("fair", "Another version", text, ["reload", "Load it again"]);
}

banners.addEventListener("click", (event) => {
  const what = event.target.dataset.do;
  if (what === "retry") retry();
  if (what === "token") askForToken(liveness.why);
  if (what === "reload") location.reload();
});

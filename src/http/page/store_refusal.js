// The agent's reason for not answering a request to the store.

import { el, message } from "./dom.js";
import { mark } from "./format.js";
import { askForToken } from "./token.js";

/** A paragraph for an answer that has no content; nothing for another one. */
export function refusal({ status, reason }) {
  if (status === 200 || status === 404) return null;
  const isDenied = status === 401 || status === 403;
  const word = isDenied ? "No access" : status >= 500 ? "No answer" : "Refused";
  const button = isDenied && el("button", { type: "button", "data-action": "token" }, "Enter a token");
  return el("p", { class: "note refusal" }, mark("critical", word), " ", message(reason), " ", button);
}

/** Opens the dialog for a token when the button of a refusal below `element` is pressed. */
export function handleRefusals(element) {
  element.addEventListener("click", (event) => {
    if (event.target.dataset?.action === "token") askForToken("");
  });
}

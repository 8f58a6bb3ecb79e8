// Asks for a token where the agent wants one.

import { setToken } from "./live.js";

const dialog = document.getElementById("ask");
const box = document.getElementById("ask-token");

/** Opens the dialog, with what the agent said of the token before. */
export function askForToken(why) {
  document.getElementById("ask-why").textContent = why;
  box.value = "";
  if (!dialog.open) dialog.showModal();
}

document.getElementById("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  dialog.close();
  setToken(box.value.trim());
  box.value = "";
});

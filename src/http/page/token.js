// The dialog that requests an API token.

import { setToken } from "./api.js";

const dialog = document.getElementById("token-dialog");
const box = document.getElementById("token");

/** Opens the dialog with the agent's reason for rejecting the previous token, if there is one. */
export function askForToken(reason) {
  document.getElementById("token-error").textContent = reason;
  box.value = "";
  if (!dialog.open) dialog.showModal();
}

document.getElementById("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  dialog.close();
  setToken(box.value.trim());
  box.value = "";
});

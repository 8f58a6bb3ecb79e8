// The value of a key: text as it is, other octets in hexadecimal digits.

import { el } from "./dom.js";
import { size } from "./format.js";

/** Characters of a text, and other octets, that are shown. */
const MAX_TEXT = 64 << 10;
const MAX_OCTETS = 4 << 10;
/** Octets in a line: a line fits a narrow screen. */
const LINE = 8;

/** The octets of a value of the API: base64, or `null` if it is empty. */
export function octetsOf(base64) {
  return Uint8Array.from(atob(base64 ?? ""), (character) => character.charCodeAt(0));
}

/** The value as elements. */
export function valueOf(octets) {
  if (octets.length === 0) return el("p", { class: "detail" }, "The value is empty.");
  const text = textOf(octets);
  if (text === null) {
    const limit =
      octets.length > MAX_OCTETS ? ` The first ${size(MAX_OCTETS)} of ${size(octets.length)} are shown.` : "";
    const about = `${size(octets.length)} that are not UTF-8, in hexadecimal digits.${limit}`;
    return el(
      "div",
      {},
      el("p", { class: "detail" }, about),
      el("pre", { class: "octets" }, hexadecimal(octets.subarray(0, MAX_OCTETS))),
    );
  }
  const isWhole = text.length <= MAX_TEXT;
  const about =
    !isWhole && el("p", { class: "detail" }, `The first ${MAX_TEXT} of ${text.length} characters are shown.`);
  return el("div", {}, about, el("pre", {}, isWhole ? text : text.slice(0, MAX_TEXT)));
}

/** The text of UTF-8; `null` for other octets. */
function textOf(octets) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(octets);
  } catch {
    return null;
  }
}

function hexadecimal(octets) {
  const lines = [];
  for (let at = 0; at < octets.length; at += LINE) {
    const digits = [...octets.subarray(at, at + LINE)].map((octet) => octet.toString(16).padStart(2, "0"));
    lines.push(`${at.toString(16).padStart(6, "0")}  ${digits.join(" ")}`);
  }
  return lines.join("\n");
}

// Names of keys: their text, their addresses on the page and in the API, and the folders that they form.

/** The separator of folders. */
export const SEPARATOR = "/";

/** The text of a name on one line. `el` escapes the other control characters. */
export function literal(name) {
  return name.replace(/[\t\n]/g, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
}

/** The address of a view of the store, and of a key or a prefix in it. Slashes of keys stay readable. */
export function storeHref(view, name = null) {
  const path = name === null ? "" : `/${name.split(SEPARATOR).map(encodeURIComponent).join(SEPARATOR)}`;
  return `#/store/${view}${path}`;
}

/**
 * A key as the end of a path of the API; `null` if there is none: browsers resolve `.` and `..` as steps in a path, also when
 * they are encoded. Encoded slashes prevent this for longer keys.
 */
export function pathOf(name) {
  return name === "." || name === ".." ? null : encodeURIComponent(name);
}

/** The folder that contains a key or a folder: `app/` of `app/a` and of `app/b/`. */
export function folderOf(name) {
  return name.slice(0, name.lastIndexOf(SEPARATOR, name.length - 2) + 1);
}

/** The folders above a prefix and the prefix itself: `a/`, `a/b/` and `a/b/c` of `a/b/c`. */
export function foldersOf(prefix) {
  const parts = prefix.split(SEPARATOR);
  const folders = parts.map(
    (_, at) => parts.slice(0, at + 1).join(SEPARATOR) + (at < parts.length - 1 ? SEPARATOR : ""),
  );
  return folders.filter((folder, at) => parts[at] !== "" || at < parts.length - 1);
}

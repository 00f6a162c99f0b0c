// What stands in the page's address and in links to it: #/run/toy~ppo/rollouts/12/3?stage=ppo, made and gone to.

/** What an escaped text stands for; one that is none, such as "50%", stands for itself. */
export function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** "/run/ID/…" of parts that are escaped. */
export const runPath = (id, ...rest) => ["/run", ...[id, ...rest].map((part) => encodeURIComponent(part))].join("/");

/** "/compare/ID,ID,…": escaped twice, so that a comma within an id is none between two when the path is taken apart. */
export const comparePath = (ids) => `/compare/${ids.map((id) => encodeURIComponent(encodeURIComponent(id))).join(",")}`;

/** The ids of a compare path's part. */
export const comparedIds = (part) => part.split(",").map(decoded);

/** What a link to that path says; parameters that are null, undefined or "" are left out. */
export function href({ path, params = {} }) {
  const given = Object.entries(params).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const search = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `#${path}${search ? `?${search}` : ""}`;
}

/**
 * Goes to a path. `replace` changes the address without a new entry in the browser's history: for filters that change
 * with each letter.
 */
export function navigate({ path, params, replace = false }) {
  const target = href({ path, params });
  if (target === location.hash) return;
  if (replace) {
    history.replaceState(null, "", target);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = target;
  }
}

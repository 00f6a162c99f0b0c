// The page's address: #/run/toy~ppo/rollouts/12/3?stage=ppo, parsed and made.
import { useEffect, useState } from "./html.js";
import { VIEWS } from "./view_table.js";

/**
 * @typedef {object} Route
 * @property {string} view    name of the view, a key of VIEWS in view_table.js
 * @property {string} path    without the query
 * @property {Record<string, string>} params   what stands in the path: id, step, row, group, ids
 * @property {Record<string, string>} query    what stands behind the question mark
 */

/** What an escaped text stands for; one that is none, such as "50%", stands for itself. */
export function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const parts = (path) => path.split("/").filter(Boolean);

/** @returns {Record<string, string>|null} the named parts of the path where the pattern fits */
function matched(pattern, path) {
  const [wanted, given] = [parts(pattern), parts(path)];
  if (wanted.length !== given.length) return null;
  const params = {};
  for (const [index, part] of wanted.entries()) {
    if (part.startsWith(":")) params[part.slice(1)] = decoded(given[index]);
    else if (part !== given[index]) return null;
  }
  return params;
}

/** @returns {Route} of a location's hash; an unknown path is the list of runs */
export function parse(hash) {
  const [path, search = ""] = hash.replace(/^#/, "").split("?", 2);
  const query = Object.fromEntries(new URLSearchParams(search));
  for (const [view, { pattern }] of Object.entries(VIEWS)) {
    const params = matched(pattern, path);
    if (params) return { view, path: path || "/", params, query };
  }
  return { view: "runs", path: "/", params: {}, query: {} };
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

/** @returns {Route} of the address, newly after each change */
export function useRoute() {
  const [route, setRoute] = useState(() => parse(location.hash));
  useEffect(() => {
    const changed = () => setRoute(parse(location.hash));
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

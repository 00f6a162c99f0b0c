// Which view the page's address is of, now and after each change.
import { decoded } from "./addresses.js";
import { useEffect, useState } from "./html.js";
import { VIEWS } from "./view_table.js";

/**
 * @typedef {object} Route
 * @property {string} view    name of the view, a key of VIEWS in view_table.js
 * @property {string} path    without the query
 * @property {Record<string, string>} params   what stands in the path: id, step, row, group, ids
 * @property {Record<string, string>} query    what stands behind the question mark
 */

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

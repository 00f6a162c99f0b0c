// The client of an exported file: what lib/client.js asks of a server is answered by the data inside the page.
import { ServerError } from "./client.js";
import { pairListing, rolloutGroup, rolloutListing, rolloutRow } from "./export_rollouts.js";

const NOT_HERE = "This is not in the exported file. Open the run with `plumbob ui` to see it.";
/** Cursors of a file that is read once, from its beginning. */
const IGNORED = new Set(["after"]);

/** What a stage has that left none of them. */
const NOTHING = { rollouts: { total: 0, rows: [] }, pairs: { available: false, rows: [] } };

/** As the file names paths: with the run's id as it is. Of what follows it each part is escaped still. */
const named = (path) => path.replace(/^\/api\/runs\/([^/]+)/, (_, id) => `/api/runs/${decodeURIComponent(id)}`);

/** Path of a part of a run -> what answers it from that stage's data; null where the data has no such thing. */
const ROUTES = [
  [/\/rollouts$/, "rollouts", (sample, _, asked) => rolloutListing(sample, asked)],
  [/\/rollouts\/(\d+)\/group\/([^/]+)$/, "rollouts", (sample, [step, group]) => rolloutGroup(sample, step, decodeURIComponent(group))],
  [/\/rollouts\/(\d+)\/row\/(\d+)$/, "rollouts", (sample, [step, row]) => rolloutRow(sample, step, row)],
  [/\/pairs$/, "pairs", (pairs, _, asked) => pairListing(pairs, asked)],
];

function answer(data, path, asked) {
  const stage = asked.stage ?? "";
  for (const [pattern, name, answered] of ROUTES) {
    const found = path.match(pattern);
    if (!found) continue;
    return answered(data[name]?.[stage] ?? NOTHING[name], found.slice(1), asked);
  }
  return data.answers[stage ? `${path}?stage=${stage}` : path] ?? data.answers[path] ?? null;
}

/**
 * @param {object} data   of #exported-run: {session, run, answers: {path: JSON}, rollouts: {stage: {total, rows}}, pairs}
 * @returns {import("./client.js").Client}
 */
export function exportClient(data) {
  const get = async (path, params = {}) => {
    if (path === "/api/session") return data.session;
    const asked = Object.fromEntries(Object.entries(params).filter(([name, value]) => !IGNORED.has(name) && value !== null && value !== undefined));
    const found = answer(data, named(path), asked);
    if (found === null) throw new ServerError(NOT_HERE, 404);
    return found;
  };
  const post = async () => {
    throw new ServerError(NOT_HERE, 404);
  };
  return { isStatic: true, get, post, live: () => () => {} };
}

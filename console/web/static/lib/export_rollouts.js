// What the server does with rollouts and pairs, over the rows that an exported file holds: filter, sort, page, count.

const NUM_BINS = 24;
const EXCERPT_LETTERS = 300;

/** Whether a value is within bounds that are texts of an address; an empty one is open. */
function isWithin(value, low, high) {
  const isSet = (bound) => bound !== undefined && bound !== null && bound !== "";
  if (!isSet(low) && !isSet(high)) return true;
  if (value === null || value === undefined) return false;
  return (!isSet(low) || value >= Number(low)) && (!isSet(high) || value <= Number(high));
}

function passes(row, asked) {
  const text = (asked.text ?? "").toLowerCase();
  return (
    isWithin(row.step, asked.step_from, asked.step_to) &&
    isWithin(row.length, asked.length_min, asked.length_max) &&
    (!asked.part || (asked.part in row.rewards && isWithin(row.rewards[asked.part], asked.part_min, asked.part_max))) &&
    (!asked.version || isWithin(Number(asked.version), row.version_min ?? Infinity, row.version_max ?? -Infinity)) &&
    (!asked.finish || row.finish_reason === asked.finish) &&
    (!asked.dropped || (asked.dropped === "yes") === (row.dropped !== null)) &&
    (!text || row.prompt.toLowerCase().includes(text) || row.response.toLowerCase().includes(text))
  );
}

const distinct = (values) => [...new Set(values)].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));

/** Bins of equal width over all finite scores; the last one holds its upper edge. */
export function histogramOf(scores) {
  const known = scores.filter((score) => score !== null);
  if (!known.length) return { edges: [], counts: [] };
  const low = known.reduce((a, b) => Math.min(a, b));
  const high = known.reduce((a, b) => Math.max(a, b));
  if (low === high) return { edges: [low - 0.5, low + 0.5], counts: [known.length] };
  const width = (high - low) / NUM_BINS;
  const counts = Array(NUM_BINS).fill(0);
  for (const score of known) counts[Math.min(NUM_BINS - 1, Math.floor((score - low) / width))] += 1;
  return { edges: Array.from({ length: NUM_BINS + 1 }, (_, index) => (index === NUM_BINS ? high : low + index * width)), counts };
}

function paged(rows, { limit = 50, offset = 0 }) {
  return rows.slice(Number(offset), Number(offset) + Number(limit));
}

/** As the server's listing of rollouts. `sample`: {total, rows} of the file. */
export function rolloutListing(sample, asked) {
  const { rows } = sample;
  const passed = rows.filter((row) => passes(row, asked));
  const chosen = passed.filter((row) => isWithin(row.score, asked.score_min, asked.score_max));
  const key = asked.sort ?? "step";
  const sign = asked.order === "asc" ? 1 : -1;
  chosen.sort((a, b) => sign * ((a[key] ?? -Infinity) - (b[key] ?? -Infinity)) || a.step - b.step || a.row - b.row);
  const excerpt = (row) => ({ ...row, prompt: row.prompt.slice(0, EXCERPT_LETTERS), response: row.response.slice(0, EXCERPT_LETTERS) });
  return {
    rows: paged(chosen, asked).map(excerpt),
    total: chosen.length,
    num_rows: rows.length,
    sampled_of: sample.total,
    steps: distinct(rows.map((row) => row.step)),
    parts: distinct(rows.flatMap((row) => Object.keys(row.rewards))),
    versions: distinct(rows.flatMap((row) => [row.version_min, row.version_max]).filter((version) => version !== null && version >= 0)),
    finish_reasons: distinct(rows.map((row) => row.finish_reason)),
    histogram: histogramOf(passed.map((row) => row.score)),
  };
}

const inGroup = (rows, step, group) =>
  rows.filter((row) => row.step === step && row.group_id === group).sort((a, b) => a.sample_index - b.sample_index);

/** As the server's group; null where the file has none of it. */
export function rolloutGroup({ rows }, step, group) {
  const found = inGroup(rows, Number(step), group);
  return found.length ? { prompt: found[0].prompt, prompt_row: found[0].prompt_row, rows: found } : null;
}

/** As the server's row, its neighbours those that the file has; null where it is not there. */
export function rolloutRow({ rows }, step, number) {
  const found = rows.find((row) => row.step === Number(step) && row.row === Number(number));
  if (!found) return null;
  const own = inGroup(rows, found.step, found.group_id);
  const index = own.indexOf(found);
  const groups = [...new Set(rows.filter((row) => row.step === found.step).map((row) => row.group_id))];
  const at = groups.indexOf(found.group_id);
  const place = (row) => (row ? { step: row.step, row: row.row } : null);
  const firstOf = (group) => place(group === undefined ? null : inGroup(rows, found.step, group)[0]);
  return {
    ...found,
    previous: place(own[index - 1]),
    next: place(own[index + 1]),
    group_previous: firstOf(groups[at - 1]),
    group_next: firstOf(groups[at + 1]),
    group: { index: at, size: own.length, rows: own.map((row) => row.row) },
  };
}

/** As the server's pairs. `pairs`: of the file, with all the rows that it has; its `total` is the run's. */
export function pairListing(pairs, asked) {
  const orders = { index: (a, b) => a.index - b.index, margin: (a, b) => a.margin - b.margin, disagreement: (a, b) => a.margin - b.margin };
  const listed = asked.sort === "disagreement" ? pairs.rows.filter((pair) => pair.margin < 0) : [...pairs.rows];
  listed.sort(orders[asked.sort ?? "margin"]);
  return { ...pairs, rows: paged(listed, asked), matching: listed.length, num_rows: pairs.rows.length, sampled_of: pairs.total };
}

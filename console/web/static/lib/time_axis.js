// Ticks of an axis of time, and pieces of time as pieces of a line of pixels.

/** Distances of ticks that people read easily, in seconds. */
const DISTANCES_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400, 172_800, 604_800];

/** @returns {number[]} about `count` round times from `from` to `to` */
export function timeTicks(from, to, count) {
  const longest = DISTANCES_S[DISTANCES_S.length - 1];
  const fitting = DISTANCES_S.find((each) => (to - from) / each <= count);
  const distance = fitting ?? longest * Math.ceil((to - from) / count / longest);
  const ticks = [];
  for (let time = Math.ceil(from / distance) * distance; time <= to; time += distance) ticks.push(Number(time.toFixed(3)));
  return ticks;
}

/**
 * Spans as rectangles in pixels.
 * @returns {{left: number, right: number, state: string, from: number, to: number}[]}  from, to: shares of the height
 */
export function spanRects(spans, { from, to, width }) {
  const rects = [];
  const place = (time) => ((time - from) / (to - from)) * width;
  for (const { begin, end, state } of spans) {
    if (end < from || begin > to) continue;
    const [left, right] = [Math.max(0, place(begin)), Math.min(width, place(end))];
    rects.push({ left, right, state, from: 0, to: 1 });
  }
  return rects;
}

/**
 * As bars of two pixels each, where spans are too short to be seen: in each the share of every state, one above the other.
 * @returns {{left: number, right: number, state: string, from: number, to: number}[]}  from, to: shares of the bar's height
 */
export function shareRects(spans, { from, to, width }, states) {
  const count = Math.max(1, Math.floor(width / 2));
  const length = (to - from) / count;
  const shares = states.map(() => new Float64Array(count));
  for (const { begin, end, state } of spans) {
    const [first, last] = [Math.max(0, Math.floor((begin - from) / length)), Math.min(count - 1, Math.floor((end - from) / length))];
    for (let bin = first; bin <= last; bin += 1) {
      const [left, right] = [from + bin * length, from + (bin + 1) * length];
      shares[states.indexOf(state)][bin] += Math.max(0, Math.min(end, right) - Math.max(begin, left)) / length;
    }
  }
  const rects = [];
  for (let bin = 0; bin < count; bin += 1) {
    let below = 0;
    for (const [index, state] of states.entries()) {
      const share = shares[index][bin];
      if (share > 0.01) rects.push({ left: (bin * width) / count, right: ((bin + 1) * width) / count, state, from: below, to: Math.min(1, below + share) });
      below += share;
    }
  }
  return rects;
}

/** Spans in order without overlaps, what lies between two of them as idle. */
export function withIdle(spans) {
  const found = [];
  let last = null;
  for (const span of [...spans].sort((left, right) => left.begin - right.begin)) {
    if (last !== null && span.begin > last) found.push({ begin: last, end: span.begin, state: "idle", what: "" });
    const begin = Math.max(span.begin, last ?? span.begin);
    if (span.end > begin) found.push({ ...span, begin });
    last = Math.max(last ?? span.end, span.end);
  }
  return found;
}

/** Seconds that a worker spent in each state: {busy: 12.5, …}. */
export function secondsByState(spans) {
  const totals = {};
  for (const { begin, end, state } of spans) totals[state] = (totals[state] ?? 0) + (end - begin);
  return totals;
}

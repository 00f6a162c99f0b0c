// A small line without axes: how a figure went.
import { html } from "../lib/html.js";

const [WIDTH, HEIGHT, MARGIN, MOST_POINTS] = [120, 28, 2, 120];

/** At most `count` of the values, evenly taken, the last among them. */
function thinned(values, count) {
  if (values.length <= count) return values;
  return Array.from({ length: count }, (_, index) => values[Math.round((index * (values.length - 1)) / (count - 1))]);
}

/** @returns {string} an SVG path with gaps where a value is missing */
export function sparkPath(values) {
  const known = values.filter((value) => value !== null && value !== undefined);
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const x = (index) => MARGIN + (index * (WIDTH - 2 * MARGIN)) / Math.max(1, values.length - 1);
  const y = (value) => HEIGHT - MARGIN - ((value - low) * (HEIGHT - 2 * MARGIN)) / (high - low || 1);
  let isDown = false;
  return values.map((value, index) => {
    if (value === null || value === undefined) {
      isDown = false;
      return "";
    }
    const step = `${isDown ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    isDown = true;
    return step;
  }).join("");
}

export const Sparkline = ({ values }) => html`
  <svg class="sparkline" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
    <path d=${sparkPath(thinned(values, MOST_POINTS))} fill="none" stroke="currentColor" stroke-width="1.5"
      vector-effect="non-scaling-stroke" />
  </svg>`;

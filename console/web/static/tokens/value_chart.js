// Value and advantage along an answer, with a line at the current token: the mouse moves both.
import { html, useMemo } from "../lib/html.js";
import { tokenNumber } from "./numbers.js";

const SERIES = [
  { field: "value", name: "value", className: "line-1" },
  { field: "advantage", name: "advantage", className: "line-2" },
];
const [HEIGHT, MARGIN] = [100, 4];

/** An SVG path over one unit for each token, with gaps where a token is masked or has no number. */
export function linePath(values, mask, low, high) {
  const y = (value) => HEIGHT * (1 - (value - low) / (high - low || 1));
  let isDown = false;
  return values
    .map((value, index) => {
      if (!mask[index] || value === null) {
        isDown = false;
        return "";
      }
      const from = `${isDown ? "L" : "M"}${index} ${y(value).toFixed(2)}`;
      isDown = true;
      return `${from}H${index + 1}`;
    })
    .join("");
}

/** @param {{tokens: object, cursor: number, onCursor: (index: number) => void}} props */
export function ValueChart({ tokens, cursor, onCursor }) {
  const drawn = useMemo(() => drawnSeries(tokens), [tokens]);
  if (!drawn) return null;
  const { series, low, high } = drawn;
  const size = tokens.text.length;
  const moved = (event) => {
    const { left, width } = event.currentTarget.getBoundingClientRect();
    const index = Math.floor(((event.clientX - left) / width) * size);
    onCursor(Math.max(0, Math.min(size - 1, index)));
  };
  const zero = (HEIGHT * high) / (high - low || 1);
  return html`
    <figure class="value-chart">
      <figcaption>
        ${series.map(({ name, field, className }) => html`
          <span key=${name}><svg class="swatch" viewBox="0 0 22 8" aria-hidden="true"><path class=${className} d="M0 4H22" /></svg>
            ${name} <b>${tokenNumber(tokens.mask[cursor] ? tokens[field][cursor] : null)}</b></span>`)}
        <span class="dim">at token ${cursor + 1}</span>
      </figcaption>
      <div class="value-axis" aria-hidden="true"><span>${tokenNumber(high)}</span><span>${tokenNumber(low)}</span></div>
      <svg viewBox=${`0 ${-MARGIN} ${size} ${HEIGHT + 2 * MARGIN}`} preserveAspectRatio="none" role="img" onMouseMove=${moved}
        aria-label=${`${series.map(({ name }) => name).join(" and ")} along ${size} tokens, from ${tokenNumber(low)} to ${tokenNumber(high)}`}>
        <path class="line-zero" d=${`M0 ${zero}H${size}`} />
        ${series.map(({ field, className, path }) => html`<path key=${field} class=${className} d=${path} />`)}
        <path class="line-cursor" d=${`M${cursor + 0.5} ${-MARGIN}V${HEIGHT + MARGIN}`} />
      </svg>
    </figure>`;
}

/** The lines that there are, on one axis that has 0 on it; null for none. */
function drawnSeries(tokens) {
  const series = SERIES.filter(({ field }) => tokens[field]);
  const numbers = series.flatMap(({ field }) => tokens[field].filter((value, index) => value !== null && tokens.mask[index]));
  if (!numbers.length) return null;
  const [low, high] = [Math.min(0, ...numbers), Math.max(0, ...numbers)];
  return { low, high, series: series.map((line) => ({ ...line, path: linePath(tokens[line.field], tokens.mask, low, high) })) };
}

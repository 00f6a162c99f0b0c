// Parts of a whole as one bar, and counts as a histogram.
import { seriesVariable } from "../lib/colours.js";
import { number } from "../lib/format.js";
import { html } from "../lib/html.js";

const SHARE_WITH_LABEL = 0.08;
/** Parts are told apart by a pattern too: the n-th has the n-th, which css/components.css draws. */
const pattern = (index) => `filled pattern-${index % 4}`;

/**
 * @param {{label: string, parts: {name: string, value: number}[], format?: (value: number) => string}} props
 */
export function StackedBar({ label, parts, format = number }) {
  const total = parts.reduce((sum, part) => sum + part.value, 0) || 1;
  return html`
    <div class="stacked" role="img" aria-label=${`${label}: ${parts.map((part) => `${part.name} ${format(part.value)}`).join(", ")}`}>
      ${parts.map((part, index) => html`
        <span key=${part.name} class=${`bar-part ${pattern(index)}`} title=${`${part.name}: ${format(part.value)}`}
          style=${{ flexGrow: part.value / total, "--part": `var(${seriesVariable(index)})` }}>
          ${part.value / total >= SHARE_WITH_LABEL && html`<span class="bar-label">${part.name}</span>`}
        </span>`)}
    </div>
    <ul class="legend">
      ${parts.map((part, index) => html`
        <li key=${part.name}>
          <span class=${`key ${pattern(index)}`} style=${{ "--part": `var(${seriesVariable(index)})` }}></span>
          <span class="legend-name">${part.name}</span><span class="legend-value">${format(part.value)}</span>
        </li>`)}
    </ul>`;
}

/**
 * Counts between edges; a click on a bar chooses its range.
 * @param {object} props
 * @param {string} props.label
 * @param {number[]} props.edges     one more than counts
 * @param {number[]} props.counts
 * @param {[number, number]} [props.range]   bars outside are dimmed
 * @param {(low: number, high: number) => void} [props.onRange]
 */
export function Histogram({ label, edges, counts, range, onRange }) {
  const most = Math.max(1, ...counts);
  const isIn = (index) => !range || (edges[index + 1] > range[0] && edges[index] < range[1]);
  const name = (index) => `${number(edges[index])} to ${number(edges[index + 1])}: ${counts[index]}`;
  return html`
    <figure class="histogram">
      <figcaption>${label}</figcaption>
      <div class="histogram-bars">
        ${counts.map((count, index) => html`
          <button type="button" key=${index} class=${isIn(index) ? "" : "outside"} title=${name(index)} aria-label=${name(index)}
            disabled=${!onRange} onClick=${() => onRange(edges[index], edges[index + 1])}>
            <span style=${{ height: `${(100 * count) / most}%` }}></span>
          </button>`)}
      </div>
      <div class="histogram-edges"><span>${number(edges[0])}</span><span>${number(edges[edges.length - 1])}</span></div>
    </figure>`;
}

// Names of series with their colour and dash, and a value each.
import { dash, seriesVariable } from "../lib/colours.js";
import { html } from "../lib/html.js";

/** A short piece of the series' line, as the chart draws it. */
export const Swatch = ({ index }) => html`
  <svg class="swatch" viewBox="0 0 22 8" aria-hidden="true">
    <line x1="0" y1="4" x2="22" y2="4" stroke=${`var(${seriesVariable(index)})`} stroke-width="2.5"
      stroke-dasharray=${dash(index).join(" ")} />
  </svg>`;

/** @param {{items: {name: string, index: number, value?: string}[]}} props */
export const Legend = ({ items }) => html`
  <ul class="legend">
    ${items.map(({ name, index, value }) => html`
      <li key=${name}><${Swatch} index=${index} /><span class="legend-name" title=${name}>${name}</span>
        ${value !== undefined && html`<span class="legend-value">${value}</span>`}</li>`)}
  </ul>`;

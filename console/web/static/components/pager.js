// Pages of a long list: where one is, the one before and the one after.
import { number } from "../lib/format.js";
import { html } from "../lib/html.js";

/** @param {{offset: number, size: number, total: number, onOffset: (offset: number) => void}} props  offset: of the first row shown */
export function Pager({ offset, size, total, onOffset }) {
  if (total <= size) return null;
  return html`
    <nav class="pager" aria-label="Pages">
      <button type="button" disabled=${offset === 0} onClick=${() => onOffset(Math.max(0, offset - size))}>← Previous</button>
      <span class="dim">${number(offset + 1)} to ${number(Math.min(total, offset + size))} of ${number(total)}</span>
      <button type="button" disabled=${offset + size >= total} onClick=${() => onOffset(offset + size)}>Next →</button>
    </nav>`;
}

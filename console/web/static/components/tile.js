// One figure, large, with its name, its interval and how it went.
import { html } from "../lib/html.js";
import { Sparkline } from "./sparkline.js";

/**
 * @param {object} props
 * @param {string} props.title     what the figure is
 * @param {string} props.value     as people read it
 * @param {string} [props.unit]
 * @param {string} [props.spread]  interval or spread: "± 0.12"
 * @param {(number|null)[]} [props.history]   drawn as a small line
 * @param {"good"|"bad"|"warn"} [props.tone]
 * @param {string} [props.link]    where a click leads
 */
export function Tile({ title, value, unit, spread, history, tone, link }) {
  const figure = html`
    <span class="tile-title" title=${title}>${title}</span>
    <span class="tile-value">${value}${spread && html` <span class="tile-spread">${spread}</span>`}</span>
    <span class="tile-unit">${unit}</span>
    ${history && html`<${Sparkline} values=${history} />`}`;
  const classes = `tile ${tone ?? ""}`;
  return link ? html`<a class=${classes} href=${link}>${figure}</a>` : html`<div class=${classes}>${figure}</div>`;
}

// How often a scorer is right against how sure it is: on the diagonal it is as sure as it may be.
import { number, percent } from "../lib/format.js";
import { html } from "../lib/html.js";

const [SIZE, MARGIN] = [210, 36];
const place = (share) => MARGIN + share * (SIZE - 2 * MARGIN);
/** The area of a dot grows with the pairs in its bin. */
const radius = (count, most) => 2 + 7 * Math.sqrt(count / most);

/** @param {{bins: {predicted: number, observed: number, count: number}[]}} props  shares of 1 */
export function CalibrationPlot({ bins }) {
  const filled = bins.filter(({ count }) => count > 0);
  const most = Math.max(1, ...filled.map(({ count }) => count));
  const words = filled.map((bin) => `${percent(bin.predicted)} sure, ${percent(bin.observed)} right`).join("; ");
  return html`
    <figure class="calibration">
      <figcaption>Calibration</figcaption>
      <svg viewBox=${`0 0 ${SIZE} ${SIZE}`} role="img" aria-label=${`Calibration: ${words}`}>
        <path class="line-zero" d=${`M${place(0)} ${place(1)}L${place(1)} ${place(0)}`} />
        <path class="frame" d=${`M${MARGIN} ${MARGIN}V${SIZE - MARGIN}H${SIZE - MARGIN}`} />
        ${[0, 0.5, 1].map((share) => html`
          <text key=${`x${share}`} x=${place(share)} y=${SIZE - MARGIN + 12} text-anchor="middle">${share}</text>
          <text key=${`y${share}`} x=${MARGIN - 5} y=${place(1 - share) + 3} text-anchor="end">${share}</text>`)}
        <text x=${SIZE / 2} y=${SIZE - 3} text-anchor="middle">how sure it is</text>
        <text x="8" y=${SIZE / 2} text-anchor="middle" transform=${`rotate(-90 8 ${SIZE / 2})`}>how often it is right</text>
        ${filled.map((bin) => html`
          <circle key=${bin.predicted} cx=${place(bin.predicted)} cy=${place(1 - bin.observed)} r=${radius(bin.count, most)}>
            <title>${percent(bin.predicted)} sure: right in ${percent(bin.observed)} of ${bin.count}</title>
          </circle>`)}
      </svg>
      <table class="small plain-table">
        <thead><tr><th scope="col" class="right">sure</th><th scope="col" class="right">right</th><th scope="col" class="right">pairs</th></tr></thead>
        <tbody>${filled.map((bin) => html`
          <tr key=${bin.predicted}><td class="right">${percent(bin.predicted)}</td><td class="right">${percent(bin.observed)}</td><td class="right">${number(bin.count)}</td></tr>`)}</tbody>
      </table>
    </figure>`;
}

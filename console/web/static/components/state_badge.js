// In which state a run is, told by a glyph and a word, not by colour alone.
import { html } from "../lib/html.js";

const GLYPHS = { waiting: "○", running: "●", finished: "✓", stopped: "■" };

export const StateBadge = ({ run }) => html`
  <span class=${`badge state-${run.state}`} title=${run.why}><span aria-hidden="true">${GLYPHS[run.state]}</span> ${run.state}</span>`;

/** How far a stage is; `label` names what goes forward. */
export function Progress({ step, numSteps, label }) {
  const share = numSteps ? Math.min(1, step / numSteps) : 0;
  return html`
    <span class="progress" role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax=${numSteps ?? 0} aria-valuenow=${step ?? 0}>
      <span style=${{ width: `${100 * share}%` }}></span>
    </span>`;
}

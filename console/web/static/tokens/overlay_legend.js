// What the colours of an overlay mean: its steps with the numbers at their ends.
import { number } from "../lib/format.js";
import { html } from "../lib/html.js";
import { STEPS, scaleOf, stepClass, versionClass, versionsOf } from "./scale.js";

const Swatch = ({ className, text }) => html`<li><span class=${`swatch-box ${className}`} aria-hidden="true"></span>${text}</li>`;

/** @param {{overlay: object, tokens: object}} props */
export function OverlayLegend({ overlay, tokens }) {
  const hasMasked = tokens.mask.includes(false);
  const values = overlay.values(tokens);
  return html`
    <div class="overlay-legend">
      ${values && "centre" in overlay && html`<${Steps} overlay=${overlay} scale=${scaleOf(values, tokens.mask, overlay.centre)} />`}
      <ul class="swatches">
        ${overlay.key === "version" && versionsOf(tokens).map((version, index) => html`
          <${Swatch} key=${version} className=${versionClass(index)} text=${`version ${version}`} />`)}
        ${overlay.key === "ratio" && tokens.clipped && html`<${Swatch} className="clipped" text="clipped" />`}
        ${hasMasked && html`<${Swatch} className="masked" text="masked: not the policy's" />`}
      </ul>
      <p class="dim">${overlay.meaning}</p>
    </div>`;
}

/** Its lowest number, its middle and its highest, under the steps on those sides where there is anything. */
function Steps({ overlay, scale }) {
  const low = scale.isBelow ? STEPS : 0;
  const high = scale.isAbove || !scale.isBelow ? STEPS : 0;
  const steps = Array.from({ length: low + high + 1 }, (_, index) => index - low);
  const end = (side) => number(scale.centre + side * scale.reach);
  const ends = [low && `≤ ${end(-1)}`, number(scale.centre), high && `≥ ${end(1)}`].filter(Boolean);
  return html`
    <div class="scale" role="img" aria-label=${`Colours of ${overlay.name}: ${ends.join(", ")} ${overlay.unit}`}>
      <div class="scale-steps">${steps.map((step) => html`<span key=${step} class=${stepClass(step)}></span>`)}</div>
      <div class=${`scale-ends ${low && high ? "both" : ""}`}>
        ${ends.map((text, index) => html`<span key=${text}>${text}${index === ends.length - 1 && overlay.unit ? ` ${overlay.unit}` : ""}</span>`)}
      </div>
    </div>`;
}

// A choice of one among few, all in sight: radio buttons in a row.
import { html } from "../lib/html.js";

/**
 * @param {{label: string, options: {value: string, label: string}[], value: string, onChange: (value: string) => void}} props
 */
export function Segmented({ label, options, value, onChange }) {
  const name = `segmented-${label.replace(/\W+/g, "-")}`;
  return html`
    <fieldset class="segmented">
      <legend>${label}</legend>
      ${options.map((option) => html`
        <label key=${option.value} class=${option.value === value ? "chosen" : ""}>
          <input type="radio" name=${name} checked=${option.value === value} onChange=${() => onChange(option.value)} />
          ${option.label}
        </label>`)}
    </fieldset>`;
}

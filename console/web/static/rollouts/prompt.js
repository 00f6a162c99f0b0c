// A prompt, whole, and the row of the data file that it stands in.
import { html } from "../lib/html.js";
import { plainText } from "../lib/visible_text.js";
import { Written } from "./written.js";

const MOST_LETTERS_OPEN = 1200;

/** @param {{prompt: string, row: Record<string, any>|null, isOpen?: boolean}} props  isOpen: where it is short */
export function Prompt({ prompt, row, isOpen = true }) {
  const columns = Object.entries(row ?? {});
  return html`
    <details class="prompt" open=${isOpen && prompt.length <= MOST_LETTERS_OPEN}>
      <summary>Prompt</summary>
      <${Written} text=${prompt} name="Prompt" />
    </details>
    ${columns.length > 0 && html`
      <details class="prompt">
        <summary>Its row in the data</summary>
        <dl class="answer-facts">
          ${columns.map(([name, value]) => html`
            <div key=${name}><dt>${plainText(name)}</dt><dd>${plainText(typeof value === "string" ? value : JSON.stringify(value))}</dd></div>`)}
        </dl>
      </details>`}`;
}

// All numbers of the current token.
import { html } from "../lib/html.js";
import { tokenText } from "../lib/visible_text.js";
import { numbersOf } from "./numbers.js";

/** @param {{tokens: object, index: number, isHeld: boolean}} props */
export function TokenDetails({ tokens, index, isHeld }) {
  return html`
    <section class=${`token-details ${isHeld ? "held" : ""}`} aria-label="Numbers of the current token" aria-live="polite">
      <p class="token-title">
        <code dir="auto">${tokenText(tokens.text[index]).trimEnd()}</code>
        <span class="dim">token ${index + 1} of ${tokens.text.length}${isHeld ? ", held" : ""}</span>
      </p>
      <dl>
        ${numbersOf(tokens, index).map(([name, text]) => html`<div key=${name}><dt>${name}</dt><dd>${text}</dd></div>`)}
      </dl>
    </section>`;
}

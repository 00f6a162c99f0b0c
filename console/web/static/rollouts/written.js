// A text that a model, a person or a data file wrote, as it is, in a box of its own.
import { html } from "../lib/html.js";
import { plainText } from "../lib/visible_text.js";

/** A text that may be higher than its box can be scrolled by keyboard too, so it takes the focus. */
const MOST_LETTERS = 1000;
const MOST_LINES = 12;

/** @param {{text: string, name: string}} props  name: what it is, for screen readers */
export function Written({ text, name }) {
  const isLong = text.length > MOST_LETTERS || text.split("\n", MOST_LINES + 1).length > MOST_LINES;
  if (!isLong) return html`<div class="written" dir="auto">${plainText(text)}</div>`;
  return html`<div class="written long" dir="auto" tabindex="0" role="group" aria-label=${name}>${plainText(text)}</div>`;
}

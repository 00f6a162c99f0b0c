// What is known of one answer beside its text: score, length, versions, why it ended.
import { number } from "../lib/format.js";
import { html } from "../lib/html.js";

/** "3", or "3 to 5" where several versions wrote an answer; "–" where none did. */
export function versionRange({ version_min: first, version_max: last }) {
  if (first === null || first === undefined || first < 0) return "–";
  return first === last ? String(first) : `${first} to ${last}`;
}

/** What the journal's reasons mean. */
const FINISHES = { stop: "ended", length: "cut at the length limit", partial: "not finished" };
export const finishText = (reason) => FINISHES[reason] ?? reason;
const DROPS = { flat: "not learnt from: its whole group has the same reward" };
export const dropText = (reason) => DROPS[reason] ?? `not learnt from: ${reason}`;

/** @param {{row: object, more?: [string, string|null][]}} props  more: facts that stand after the usual ones */
export function Facts({ row, more = [] }) {
  const facts = [
    ["score", number(row.score, 4)],
    ["tokens", number(row.length)],
    ["turns", row.num_turns ? number(row.num_turns) : null],
    ["version", versionRange(row)],
    ["finish", finishText(row.finish_reason)],
    ["worker", row.worker],
    ...more,
  ].filter(([, text]) => text !== null && text !== undefined);
  return html`
    <dl class="answer-facts">${facts.map(([name, text]) => html`<div key=${name}><dt>${name}</dt><dd>${text}</dd></div>`)}</dl>
    ${row.dropped && html`<p class="warn">${dropText(row.dropped)}</p>`}`;
}

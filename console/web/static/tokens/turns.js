// An episode's turns as stretches of its response's tokens.
import { number } from "../lib/format.js";

/**
 * All tokens, cut at the turns: what stands between two of them is the environment's.
 *
 * @param {{turns: {role: string, start: number|null, end: number|null, reward: number|null}[]}|null} episode
 * @returns {{start: number, end: number, label: string}[]}  none where there was no environment
 */
export function turnSpans(episode, numTokens) {
  if (!episode) return [];
  const spans = [];
  let at = 0;
  const fillUpTo = (end) => end > at && spans.push({ start: at, end, label: "environment" });
  for (const { role, start, end, reward } of episode.turns) {
    if (start === null || start === undefined) continue;
    fillUpTo(start);
    const earned = reward === null || reward === undefined ? "" : `, reward ${number(reward)}`;
    spans.push({ start, end, label: `${role}${earned}` });
    at = end;
  }
  fillUpTo(numTokens);
  return spans;
}

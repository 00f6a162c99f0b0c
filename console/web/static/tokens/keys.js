// The keys among the tokens, and what each of them asks for.

/** Key, as event.key has it -> where the current token goes: by a number of tokens, or to another line. */
const MOVES = {
  ArrowLeft: { by: -1 },
  ArrowRight: { by: 1 },
  Home: { by: -Infinity },
  End: { by: Infinity },
  ArrowUp: { line: -1 },
  ArrowDown: { line: 1 },
};

/** [keys, what they do] of the list of tokens itself; the page's `?` shows those that work everywhere. */
export const TOKEN_KEYS = [
  ["← →", "token"],
  ["↑ ↓", "line"],
  ["Home End", "first, last"],
  ["Enter", "hold"],
];

/**
 * Where a key press leads from the token at `index`; null where it is none of these keys.
 *
 * @param {(direction: -1|1) => number} inNextLine  the token above or below
 */
export function indexAfter(event, index, numTokens, inNextLine) {
  const move = MOVES[event.key];
  if (!move || event.ctrlKey || event.metaKey || event.altKey) return null;
  if (move.line) return inNextLine(move.line);
  return Math.max(0, Math.min(numTokens - 1, index + move.by));
}

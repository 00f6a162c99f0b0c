// The tokens of a response as elements, drawn without Preact.
/**
 * An answer's tokens as elements: made once, in one pass, and from then on only their classes change.
 *
 * They are options of a list box, which has the focus while one of them is the current one: 2,000 tokens are one stop of
 * the Tab key, and their events are handled where they bubble to.
 */

import { tokenText } from "../lib/visible_text.js";

/**
 * Replaces what `holder` holds.
 *
 * @param {string[]} texts  of the tokens
 * @param {{start: number, end: number, label: string}[]} turns  tokens that stand apart, under a heading; may be empty
 * @returns {HTMLElement[]}  one for each token
 */
export function drawTokens(holder, texts, turns) {
  const whole = document.createDocumentFragment();
  let parent = whole;
  const begun = new Map(turns.map((turn) => [turn.start, turn]));
  const elements = texts.map((text, index) => {
    if (begun.has(index)) whole.append((parent = turnGroup(begun.get(index))));
    const element = document.createElement("span");
    element.id = `token-${index}`;
    element.setAttribute("role", "option");
    element.textContent = tokenText(text);
    parent.append(element);
    return element;
  });
  holder.replaceChildren(whole);
  return elements;
}

function turnGroup(turn) {
  const group = document.createElement("span");
  group.className = "turn";
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", turn.label);
  group.dataset.label = turn.label;
  return group;
}

export function paintTokens(elements, classes) {
  elements.forEach((element, index) => {
    element.className = classes[index];
  });
}

/** The index of the token that an event happened on; null beside them. */
export function tokenIndex(event) {
  const element = event.target.closest?.("[role=option]");
  return element ? Number(element.id.slice("token-".length)) : null;
}

/** Makes one token the current one, and shows it within `holder`; the page stays where it is. */
export function markCurrent(holder, elements, index) {
  holder.querySelector("[aria-selected]")?.removeAttribute("aria-selected");
  const element = elements[index];
  if (!element) return;
  element.setAttribute("aria-selected", "true");
  holder.setAttribute("aria-activedescendant", element.id);
  const [frame, place] = [holder.getBoundingClientRect(), element.getBoundingClientRect()];
  if (place.top < frame.top) holder.scrollTop -= frame.top - place.top;
  else if (place.bottom > frame.bottom) holder.scrollTop += place.bottom - frame.bottom;
}

/** The token that stands above (`direction` -1) or below (1) another; itself where there is no such line. */
export function indexInNextLine(elements, index, direction) {
  const from = elements[index].getClientRects()[0];
  let best = index;
  let bestTop = null;
  let bestDistance = Infinity;
  for (let other = index + direction; other >= 0 && other < elements.length; other += direction) {
    const place = elements[other].getClientRects()[0];
    const isOnOwnLine = direction * (place.top - from.top) < from.height / 2;
    if (isOnOwnLine) continue;
    bestTop ??= place.top;
    if (Math.abs(place.top - bestTop) > from.height / 2) break;
    const distance = Math.abs(place.left - from.left);
    if (distance < bestDistance) [best, bestDistance] = [other, distance];
  }
  return best;
}

// One answer's tokens under an overlay: a list box of which Preact knows the frame alone.
import { html, useLayoutEffect, useRef } from "../lib/html.js";
import { drawTokens, indexInNextLine, markCurrent, paintTokens, tokenIndex } from "./draw.js";
import { indexAfter } from "./keys.js";
import { classesOf } from "./scale.js";

/**
 * @param {object} props
 * @param {object} props.tokens      of the row route
 * @param {{start: number, end: number, label: string}[]} props.turns
 * @param {object} props.overlay     one of OVERLAYS
 * @param {number} props.cursor      index of the current token
 * @param {boolean} props.isHeld     the mouse does not move the cursor
 * @param {(index: number) => void} props.onCursor
 * @param {(isHeld: boolean) => void} props.onHold
 */
export function TokenList({ tokens, turns, overlay, cursor, isHeld, onCursor, onHold }) {
  const holder = useRef(null);
  const elements = useRef([]);
  useLayoutEffect(() => {
    elements.current = drawTokens(holder.current, tokens.text, turns);
    holder.current.scrollTop = 0;
  }, [tokens]);
  useLayoutEffect(() => paintTokens(elements.current, classesOf(overlay, tokens)), [tokens, overlay]);
  useLayoutEffect(() => markCurrent(holder.current, elements.current, cursor), [tokens, cursor]);

  const hovered = (event) => {
    const index = tokenIndex(event);
    // Without a movement it is the text that has scrolled below the mouse.
    const isMoved = event.movementX !== 0 || event.movementY !== 0;
    if (isMoved && index !== null && index !== cursor && !isHeld) onCursor(index);
  };
  const clicked = (event) => {
    const index = tokenIndex(event);
    if (index === null) return;
    onHold(!(isHeld && index === cursor));
    onCursor(index);
  };
  const pressed = (event) => {
    if (event.key === "Enter" || event.key === "Escape") onHold(event.key === "Enter" && !isHeld);
    const inNextLine = (direction) => indexInNextLine(elements.current, cursor, direction);
    const index = indexAfter(event, cursor, tokens.text.length, inNextLine);
    if (index === null) return;
    event.preventDefault();
    onCursor(index);
    elements.current[index].scrollIntoView({ block: "nearest" });
  };
  return html`
    <div ref=${holder} id="tokens" class="tokens" dir="auto" role="listbox" aria-label="Tokens of the answer" tabindex="0"
      data-overlay=${overlay.key} onMouseMove=${hovered} onClick=${clicked} onKeyDown=${pressed}></div>`;
}

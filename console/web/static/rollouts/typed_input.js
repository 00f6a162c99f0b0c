// A field that is filled in while the page around it is drawn anew: what is typed stays until it is taken.
import { html, useRef, useState } from "../lib/html.js";

/**
 * @param {object} props
 * @param {string} props.type        "number" or "search"
 * @param {string} props.value       as it was taken last
 * @param {(value: string) => void} props.onTake   on Enter, when the field is left, and after `pauseMs` without a letter
 * @param {number} [props.pauseMs]   0: not while somebody types
 */
export function TypedInput({ type, value, onTake, pauseMs = 0, step }) {
  const [typed, setTyped] = useState(null);
  const timer = useRef(0);
  const changed = (event) => {
    const text = event.target.value;
    setTyped(text);
    clearTimeout(timer.current);
    if (pauseMs) timer.current = setTimeout(() => onTake(text), pauseMs);
  };
  const taken = (event) => {
    clearTimeout(timer.current);
    if (typed !== null && event.target.value !== value) onTake(event.target.value);
    setTyped(null);
  };
  return html`<input type=${type} step=${step} value=${typed ?? value} onInput=${changed} onChange=${taken} />`;
}

// Keys of the page: views register theirs, and `?` shows all that are active.
import { useEffect, useRef } from "./html.js";

/** Registered sets of keys, the newest last: {title, keys: {key: [what it does, handler]}}. */
const active = [];

const TYPED = "textarea, select, [contenteditable], input:not([type=radio], [type=checkbox], [type=range], [type=button])";
const isTyping = (target) => Boolean(target.closest?.(TYPED));

/** What `?` shows: [{title, keys: [[key, what it does]]}]. */
export const activeKeys = () =>
  active.map(({ title, keys }) => ({ title, keys: Object.entries(keys.current).map(([key, [text]]) => [key, text]) }));

function pressed(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (isTyping(event.target) && event.key !== "Escape") return;
  for (const { keys } of [...active].reverse()) {
    const found = keys.current[event.key];
    if (found) {
      event.preventDefault();
      found[1](event);
      return;
    }
  }
}

/**
 * Keys while a component is shown; not while somebody types, nor with Ctrl, Alt or Meta.
 * @param {string} title                                       the group's heading in the help
 * @param {Record<string, [string, (event: KeyboardEvent) => void]>} keys   key as event.key has it -> what it does
 */
export function useKeys(title, keys) {
  const current = useRef(keys);
  current.current = keys;
  useEffect(() => {
    const entry = { title, keys: current };
    if (!active.length) addEventListener("keydown", pressed);
    active.push(entry);
    return () => {
      active.splice(active.indexOf(entry), 1);
      if (!active.length) removeEventListener("keydown", pressed);
    };
  }, [title]);
}

// Preact, its hooks and htm in one place: every other module imports them from here.
import { h } from "../vendor/preact/preact.module.js";
import htm from "../vendor/htm/htm.module.js";

export { Component, Fragment, createContext, render } from "../vendor/preact/preact.module.js";
export {
  useCallback, useContext, useEffect, useLayoutEffect, useMemo, useRef, useState,
} from "../vendor/preact/hooks.module.js";

/** A template tag: html`<p class="dim">${text}</p>`. Values are put in as text, never as markup. */
export const html = htm.bind(h);

// The top of every page: where one is, light or dark, and the keys.
import { navigate } from "../lib/addresses.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { activeKeys, useKeys } from "../lib/keys.js";
import { THEMES, chooseTheme, savedTheme } from "../lib/theme.js";

/** Light, dark or as the system has it, and the next of them. */
function useTheme() {
  const [theme, setTheme] = useState(savedTheme);
  const next = () => {
    const names = Object.keys(THEMES);
    const chosen = names[(names.indexOf(theme) + 1) % names.length];
    chooseTheme(chosen);
    setTheme(chosen);
  };
  return { theme, next };
}

/** All keys that work now. */
function KeysDialog({ isOpen, close }) {
  const dialog = useRef(null);
  useEffect(() => {
    if (isOpen) dialog.current.showModal();
    else dialog.current.close();
  }, [isOpen]);
  return html`
    <dialog ref=${dialog} onClose=${close} aria-labelledby="keys-title">
      <h2 id="keys-title">Keys</h2>
      ${isOpen && activeKeys().map(({ title, keys }) => html`
        <h3 key=${title}>${title}</h3>
        <dl class="keys">${keys.map(([key, text]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${text}</dd></div>`)}</dl>`)}
      <p class="dim">In tables and curves: arrows move, Enter opens, Space chooses.</p>
      <button type="button" onClick=${close}>Close</button>
    </dialog>`;
}

export function Header({ session, isStatic }) {
  const { theme, next } = useTheme();
  const [isHelpOpen, setHelpOpen] = useState(false);
  useKeys("Everywhere", {
    "?": ["show the keys", () => setHelpOpen(true)],
    "/": ["go to the search", () => document.querySelector("main input[type=search]")?.focus()],
    g: ["go to the list of runs", () => navigate({ path: "/" })],
    t: ["light, dark or as the system", next],
  });
  return html`
    <header class="top">
      <a class="brand" href="#/"><svg viewBox="0 0 32 32" aria-hidden="true"><path d="M16 1v10M10 11h12l-1 6-5 14-5-14z" /></svg>Plumbob</a>
      <span class="top-where dim">${isStatic ? "exported run" : session?.runs_folder}</span>
      <span class="top-version dim">${session?.version}</span>
      <button type="button" class="quiet" onClick=${next} title="Light, dark or as the system (t)"><span class="hidden">Theme: </span>${THEMES[theme]}</button>
      <button type="button" class="quiet" onClick=${() => setHelpOpen(true)} title="Keys (?)" aria-label="Keys">?</button>
    </header>
    <${KeysDialog} isOpen=${isHelpOpen} close=${() => setHelpOpen(false)} />`;
}

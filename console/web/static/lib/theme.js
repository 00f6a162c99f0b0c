// Light, dark or as the system has it: applied when this module is first imported, before anything is drawn.

const KEY = "plumbob-theme";
const SYSTEM = "system";
export const THEMES = { [SYSTEM]: "◐ System", light: "○ Light", dark: "● Dark" };

function apply(theme) {
  if (theme === SYSTEM) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

/** The theme that was chosen at this or an earlier visit. */
export function savedTheme() {
  try {
    const theme = localStorage.getItem(KEY);
    return theme in THEMES ? theme : SYSTEM;
  } catch {
    return SYSTEM; // A page from the disk may have no storage.
  }
}

/** Shows a theme, and keeps it for the next visit where the browser keeps anything. */
export function chooseTheme(theme) {
  apply(theme);
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Without storage it holds for this visit.
  }
}

apply(savedTheme());

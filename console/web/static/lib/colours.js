// Colours of the style sheet for what is drawn on a canvas, and the dashes that tell series apart without colour.

export const NUM_SERIES = 8;

/** Dash of the n-th series in pixels; the first is solid. */
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [], [7, 3], [2, 3], [9, 3, 2, 3]];

export const dash = (index) => DASHES[index % NUM_SERIES];

/** The variable of the n-th series: var(--series-1). */
export const seriesVariable = (index) => `--series-${(index % NUM_SERIES) + 1}`;

let probe = null;

/** A variable of the style sheet as rgb(…): what light-dark() makes of it now. */
export function colour(variable) {
  if (!probe) {
    probe = document.createElement("span");
    probe.hidden = true;
    document.body.append(probe);
  }
  probe.style.color = `var(${variable})`;
  return getComputedStyle(probe).color;
}

/** Calls back whenever light becomes dark or dark light; gives the function that ends it. */
export function onSchemeChange(changed) {
  const media = matchMedia("(prefers-color-scheme: dark)");
  const observer = new MutationObserver(changed);
  observer.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  media.addEventListener("change", changed);
  return () => {
    observer.disconnect();
    media.removeEventListener("change", changed);
  };
}

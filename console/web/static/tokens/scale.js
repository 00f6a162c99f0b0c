// From a token's number to its colour: a few fixed steps on either side of a middle, each a class of the style sheet.

export const STEPS = 5;
/** Distinct colours of versions; a ninth has the first one's. */
const NUM_SERIES = 8;
/** Of all distances from the middle, the share that has a step of its own; what is farther has the last one's. */
const SHARE_WITHIN = 0.98;

/**
 * Steps of equal width between `centre` - `reach` and `centre` + `reach`.
 *
 * @param {(number|null)[]} values  one for each token; null where there is none
 * @param {boolean[]} mask  false: left out
 * @returns {{centre: number, reach: number, isBelow: boolean, isAbove: boolean}}  on which sides anything lies
 */
export function scaleOf(values, mask, centre) {
  const used = values.filter((value, index) => value !== null && mask[index]);
  const distances = used.map((value) => Math.abs(value - centre)).sort((a, b) => a - b);
  const reach = roundUp(distances[Math.ceil(SHARE_WITHIN * distances.length) - 1] ?? 0);
  return {
    centre,
    reach,
    isBelow: used.some((value) => value < centre),
    isAbove: used.some((value) => value > centre),
  };
}

/** 1, 2 or 5 times a power of ten, at least `value`; 1 for nothing. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const times = [1, 2, 5, 10].find((factor) => factor * power >= value * (1 - 1e-9));
  return Number((times * power).toPrecision(1));
}

/** -STEPS to STEPS: the step of a value; 0 only at the middle itself. */
export function stepOf(value, scale) {
  const distance = Math.min(1, Math.abs(value - scale.centre) / scale.reach);
  return Math.sign(value - scale.centre) * Math.ceil(distance * STEPS - 1e-9);
}

export function stepClass(step) {
  return step === 0 ? "middle" : `${step < 0 ? "low" : "high"}-${Math.abs(step)}`;
}

/** The class of each token under an overlay. Masked ones are hatched in all of them. */
export function classesOf(overlay, tokens) {
  const values = overlay.values(tokens);
  const masked = (index) => (tokens.mask[index] ? "" : " masked");
  if (values === null || overlay.key === "mask") return tokens.text.map((_, index) => masked(index));
  if (overlay.key === "version") return versionClasses(tokens, masked);
  const scale = scaleOf(values, tokens.mask, overlay.centre);
  return values.map((value, index) => {
    if (!tokens.mask[index] || value === null) return masked(index);
    const clipped = overlay.key === "ratio" && tokens.clipped?.[index] ? " clipped" : "";
    return stepClass(stepOf(value, scale)) + clipped;
  });
}

/** The versions that wrote tokens, the oldest first. */
export function versionsOf(tokens) {
  return [...new Set(tokens.version.filter((version, index) => tokens.mask[index]))].sort((a, b) => a - b);
}

export function versionClass(index) {
  return `version-${(index % NUM_SERIES) + 1}`;
}

function versionClasses(tokens, masked) {
  const [versions, written] = [tokens.version, versionsOf(tokens)];
  return versions.map((version, index) => {
    const hatched = masked(index);
    if (hatched || version < 0) return hatched;
    const isChange = index > 0 && versions[index - 1] !== version;
    return versionClass(written.indexOf(version)) + (isChange ? " changed" : "");
  });
}

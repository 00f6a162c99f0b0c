// Text of a model with what hides in it written out.
/**
 * Text as a model wrote it, with nothing in it that hides: control characters, bidi controls and invisible letters are
 * written out. What comes back is text, never markup.
 *
 * Bidi controls let text read otherwise than it is written (Boucher and Anderson 2021, arXiv 2111.00169); tag characters
 * and supplementary variation selectors carry text that nobody sees.
 */

const HIDDEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\u115F\u1160\u3164\uFFA0\u{E0100}-\u{E01EF}]/gu;
/** Joiners that belong to what is written: within an emoji, an Arabic or an Indic word. */
const JOINER = /(?<=[\p{Extended_Pictographic}\uFE0F\p{M}\p{Script=Arabic}])[\u200C\u200D](?=[\p{L}\p{Extended_Pictographic}])/gu;
const KEPT = { "\u200C": "\uE000", "\u200D": "\uE001" };
const RESTORED = { "\uE000": "\u200C", "\uE001": "\u200D" };

/** `text` with line breaks kept as they are. */
export function plainText(text) {
  return shown(text, (letter) => (letter === "\n" ? "\n" : null));
}

/** `text` on one line: line breaks are signs. */
export function oneLine(text) {
  return shown(text, (letter) => (letter === "\n" ? "⏎ " : null));
}

/** One token: its line breaks are signs and break the line; blanks are signs where it has nothing else. */
export function tokenText(text) {
  if (text === "") return "⟨⟩";
  const isBlank = /^\s+$/.test(text);
  const letters = shown(text, (letter) => (letter === "\n" ? "⏎\n" : letter === "\t" ? "⇥" : null));
  return isBlank ? letters.replaceAll(" ", "·").replaceAll("\u00A0", "⍽") : letters;
}

function shown(text, ofLineBreak) {
  const joined = text.replace(/[\uE000\uE001]/g, codePoint).replace(JOINER, (joiner) => KEPT[joiner]);
  return joined
    .replace(HIDDEN, (letter) => ofLineBreak(letter) ?? (letter === "\t" ? "\t" : codePoint(letter)))
    .replace(/[\uE000\uE001]/g, (letter) => RESTORED[letter]);
}

/** The number of a letter: ⟨U+202E⟩. */
function codePoint(letter) {
  return `⟨U+${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

// How one answer's reward came about: a waterfall from its parts over the total to what the estimator saw.
import { number, signed } from "../lib/format.js";
import { html } from "../lib/html.js";
import { plainText } from "../lib/visible_text.js";

/** Kinds of steps whose value is where the reward then stands; that of all others is added to it. */
const LEVELS = new Set(["total", "scale", "clip", "return"]);
/** Of these, those that are drawn from 0; the others from where it stood before. */
const WHOLE = new Set(["total", "return"]);

/**
 * @param {{name: string, kind: string, value: number, weight?: number|null}[]} steps  in the order of the computation
 * @returns {object[]}  each step with `from` and `to`, where its bar begins and ends, and `isWhole` where that is from 0
 */
export function waterfallBars(steps) {
  let level = 0;
  return steps.map((step) => {
    const isWhole = WHOLE.has(step.kind);
    const from = isWhole ? 0 : level;
    level = LEVELS.has(step.kind) ? step.value : level + step.value;
    return { ...step, from, to: level, isWhole };
  });
}

/** A bar between two levels, on an axis from `low` to `high` that all bars share; a line stands at 0. */
function Bar({ bar, low, high }) {
  const x = (value) => (100 * (value - low)) / (high - low || 1);
  const [left, right] = [Math.min(bar.from, bar.to), Math.max(bar.from, bar.to)];
  const tone = bar.isWhole ? "level" : bar.to < bar.from ? "loss" : "gain";
  return html`
    <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
      <path class="line-zero" d=${`M${x(0)} 0V10`} />
      <rect class=${tone} x=${x(left)} y="1.5" width=${Math.max(0.4, x(right) - x(left))} height="7" />
    </svg>`;
}

/**
 * @param {object} props
 * @param {object[]|null} props.waterfall   of the row route; null where the journal has none
 * @param {Record<string, number>} props.rewards   each part as it was scored, unweighted
 * @param {Record<string, string>} [props.failures]   part -> why it could not score the answer
 */
export function RewardWaterfall({ waterfall, rewards, failures = {} }) {
  const bars = waterfallBars(waterfall ?? []);
  const ends = bars.flatMap((bar) => [bar.from, bar.to]);
  const [low, high] = [Math.min(0, ...ends), Math.max(0, ...ends)];
  return html`
    <section class="panel reward" aria-label="Reward">
      <h2>Reward</h2>
      ${bars.length
        ? html`
          <table class="waterfall plain-table">
            <thead><tr><th scope="col">step</th><th scope="col" class="right">adds</th><th scope="col" class="right">then</th><td></td></tr></thead>
            <tbody>
              ${bars.map((bar, index) => html`
                <tr key=${index} class=${bar.isWhole ? "level" : ""}>
                  <th scope="row">${plainText(bar.name)}<span class="dim small">${stepText(bar, rewards)}</span></th>
                  <td class="right">${bar.isWhole ? "" : signed(bar.to - bar.from, 4)}</td>
                  <td class="right">${number(bar.to, 4)}</td>
                  <td class="waterfall-bar"><${Bar} bar=${bar} low=${low} high=${high} /></td>
                </tr>`)}
            </tbody>
          </table>`
        : html`<${Parts} rewards=${rewards} />`}
      ${Object.entries(failures).map(([part, why]) => html`<p class="bad" key=${part}>${plainText(part)} could not score it: ${plainText(why)}</p>`)}
    </section>`;
}

/** Its kind, where its name does not say that; and what a part was scored with, before its weight. */
function stepText({ name, kind, weight }, rewards) {
  if (kind === name) return "";
  const scored = rewards[name];
  if (kind !== "part" || scored === undefined || scored === null) return ` ${kind}`;
  return weight ? ` ${kind}, ${number(weight)} × ${number(scored, 4)}` : ` ${kind}, scored ${number(scored, 4)}`;
}

function Parts({ rewards }) {
  const parts = Object.entries(rewards);
  return html`
    <p class="dim">The journal does not say how the reward was shaped${parts.length ? "; its parts:" : "."}</p>
    <dl class="answer-facts">${parts.map(([part, value]) => html`<div key=${part}><dt>${plainText(part)}</dt><dd>${number(value, 4)}</dd></div>`)}</dl>`;
}

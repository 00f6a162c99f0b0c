// One pair: what a person chose against what they rejected, and by how much the scorer agrees.
import { number, percent, signed } from "../lib/format.js";
import { html } from "../lib/html.js";
import { oneLine, plainText } from "../lib/visible_text.js";
import { Written } from "../rollouts/written.js";

const EXCERPT_LETTERS = 300;

function Side({ title, text, reward }) {
  return html`
    <div class="side">
      <h3>${title}${reward !== null && reward !== undefined && html` <span class="dim">reward ${number(reward, 4)}</span>`}</h3>
      ${text === null ? html`<p class="dim">none: a single answer</p>` : html`<${Written} text=${text} name=${`${title} answer`} />`}
    </div>`;
}

/** Whether the scorer decides as the person did -> word, sign, tone. */
const VERDICTS = { true: ["agrees", "✓", "good"], false: ["disagrees", "✗", "bad"], null: ["unscored", "–", "dim"] };

/** @param {{pair: object}} props  of the pairs route */
export function PairCard({ pair }) {
  const [verdict, sign, tone] = VERDICTS[String(pair.agrees)];
  return html`
    <article class=${`panel pair ${verdict}`} aria-label=${`Pair ${pair.index}`}>
      <p class="pair-head">
        <span class=${tone}><span aria-hidden="true">${sign}</span> ${verdict}</span>
        <span>margin <b>${signed(pair.margin, 4)}</b></span>
        ${pair.probability !== null && pair.probability !== undefined && html`<span class="dim">${percent(pair.probability)} sure of the person's choice</span>`}
        ${pair.annotator && html`<span class="dim">by ${plainText(pair.annotator)}</span>`}
        <span class="dim">pair ${pair.index}</span>
      </p>
      <details class="prompt">
        <summary dir="auto">${oneLine(pair.prompt.slice(0, EXCERPT_LETTERS))}</summary>
        <${Written} text=${pair.prompt} name="Prompt" />
      </details>
      <div class="sides">
        <${Side} title="chosen" text=${pair.chosen} reward=${pair.chosen_reward} />
        <${Side} title="rejected" text=${pair.rejected} reward=${pair.rejected_reward} />
      </div>
    </article>`;
}

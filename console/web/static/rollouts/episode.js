// An episode as it was played: the turns of the policy and of its environment.
import { signed } from "../lib/format.js";
import { html } from "../lib/html.js";
import { plainText } from "../lib/visible_text.js";
import { Written } from "./written.js";

/** @param {{episode: {turns: {role: string, content: string, reward: number|null}[], failure: string|null}}} props */
export const Episode = ({ episode }) => html`
  <ol class="episode">
    ${episode.turns.map(({ role, content, reward }, index) => html`
      <li key=${index} class=${role === "assistant" ? "own" : "other"}>
        <p class="turn-head"><b>${plainText(role)}</b>
          ${reward !== null && reward !== undefined && html` <span class="dim">reward ${signed(reward)}</span>`}</p>
        <${Written} text=${content} name=${`Turn ${index + 1}`} />
      </li>`)}
  </ol>
  ${episode.failure && html`<p class="bad">The environment failed: ${plainText(episode.failure)}</p>`}`;

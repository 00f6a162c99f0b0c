// One answer, token by token: overlays on its text, all numbers of the current token, and how its reward came about.
import { Empty, ErrorNote, Loading } from "../components/notes.js";
import { Segmented } from "../components/segmented.js";
import { href, runPath } from "../lib/addresses.js";
import { runAddress } from "../lib/client.js";
import { html, useEffect, useState } from "../lib/html.js";
import { useKeys } from "../lib/keys.js";
import { useLoaded } from "../lib/loaded.js";
import { plainText } from "../lib/visible_text.js";
import { Facts } from "../rollouts/facts.js";
import { Prompt } from "../rollouts/prompt.js";
import { TOKEN_KEYS } from "../tokens/keys.js";
import { OverlayLegend } from "../tokens/overlay_legend.js";
import { chosenOverlay, overlaysOf } from "../tokens/overlays.js";
import { TokenDetails } from "../tokens/token_details.js";
import { TokenList } from "../tokens/token_list.js";
import { turnSpans } from "../tokens/turns.js";
import { ValueChart } from "../tokens/value_chart.js";
import { RewardWaterfall } from "./reward.js";

/** Where the answers around one are named in what the server says -> [link's text, key]. */
const AROUND = {
  previous: ["← answer", "p"],
  next: ["answer →", "n"],
  group_previous: ["← group", "P"],
  group_next: ["group →", "N"],
};

export function TokensView({ stage, route, client, navigate }) {
  const { id, step, row } = route.params;
  const { content: answer, error, retry } = useLoaded(client, runAddress(id, `/rollouts/${step}/row/${row}`), { stage });
  if (error) return html`<${ErrorNote} error=${error} retry=${retry} />`;
  if (!answer) return html`<${Loading} what="the answer" />`;
  const goTo = (place) => ({ path: runPath(id, "rollouts", place.step, place.row), params: route.query });
  const choose = (overlay) => navigate({ path: route.path, params: { ...route.query, overlay }, replace: true });
  return html`<${Answer} answer=${answer} route=${route} goTo=${goTo} navigate=${navigate} onOverlay=${choose} />`;
}

function Answer({ answer, route, goTo, navigate, onOverlay }) {
  const { tokens } = answer;
  const overlays = overlaysOf(tokens);
  const overlay = chosenOverlay(route.query.overlay, tokens);
  const [state, setState] = useState({ answer, cursor: 0, isHeld: false });
  // The first token of another answer is the current one from its first drawing on.
  const { cursor, isHeld } = state.answer === answer ? state : { cursor: 0, isHeld: false };
  const setCursor = (index) => setState((before) => ({ answer, cursor: index, isHeld: before.answer === answer && before.isHeld }));
  const setHeld = (held) => setState({ answer, cursor, isHeld: held });
  useAnswerKeys({ answer, overlays, overlay, goTo, navigate, onOverlay });
  useEffect(() => window.scrollTo(0, 0), []);
  const options = overlays.map(({ key, name }) => ({ value: key, label: name }));
  return html`
    <div class="token-view">
      <div class="token-main">
        <${Heading} answer=${answer} route=${route} goTo=${goTo} />
        <section class="panel" aria-label="Answer">
          <div class="overlay-bar">
            <${Segmented} label="Overlay" options=${options} value=${overlay.key} onChange=${onOverlay} />
            <${OverlayLegend} overlay=${overlay} tokens=${tokens} />
          </div>
          ${tokens.text.length
            ? html`
              <${TokenList} tokens=${tokens} turns=${turnSpans(answer.episode, tokens.text.length)} overlay=${overlay}
                cursor=${cursor} isHeld=${isHeld} onCursor=${setCursor} onHold=${setHeld} />
              <p class="token-keys dim">${TOKEN_KEYS.map(([keys, text]) => html`<span key=${keys}><kbd>${keys}</kbd> ${text}</span>`)}
                <span><kbd>?</kbd> all keys</span></p>
              <${ValueChart} tokens=${tokens} cursor=${cursor} onCursor=${(index) => isHeld || setCursor(index)} />`
            : html`<${Empty} title="An empty answer: not one token." />`}
          ${answer.episode?.failure && html`<p class="bad">The environment failed: ${plainText(answer.episode.failure)}</p>`}
        </section>
      </div>
      <aside class="token-side">
        ${tokens.text.length > 0 && html`<${TokenDetails} tokens=${tokens} index=${cursor} isHeld=${isHeld} />`}
        <${RewardWaterfall} waterfall=${answer.waterfall} rewards=${answer.rewards} failures=${answer.failures} />
      </aside>
    </div>`;
}

function Heading({ answer, route, goTo }) {
  const { stage } = route.query;
  const group = href({ path: runPath(route.params.id, "rollouts", answer.step, "group", answer.group_id), params: { stage } });
  const index = answer.group ? answer.group.rows.indexOf(answer.row) : -1;
  const place = index < 0 ? "of its " : `${index + 1} of ${answer.group.size} in its `;
  return html`
    <section class="panel">
      <div class="answer-head">
        <h2>Step ${answer.step}, answer ${place}<a href=${group}>group</a></h2>
        <nav class="around" aria-label="Answers around this one">
          ${Object.entries(AROUND).map(([name, [text, key]]) => answer[name]
            ? html`<a key=${name} href=${href(goTo(answer[name]))} title=${`key ${key}`}>${text}</a>`
            : html`<span key=${name} class="dim" aria-disabled="true">${text}</span>`)}
        </nav>
      </div>
      <${Facts} row=${answer} more=${[["seed", String(answer.seed)]]} />
      <${Prompt} prompt=${answer.prompt} row=${answer.prompt_row} isOpen=${matchMedia("(min-width: 641px)").matches} />
    </section>`;
}

/** Keys that work wherever the focus is. */
function useAnswerKeys({ answer, overlays, overlay, goTo, navigate, onOverlay }) {
  const go = (name) => answer[name] && navigate(goTo(answer[name]));
  const turn = (by) => onOverlay(overlays[(overlays.indexOf(overlay) + by + overlays.length) % overlays.length].key);
  const numbered = overlays.slice(0, 10).map(({ key, name }, index) => [String((index + 1) % 10), [name, () => onOverlay(key)]]);
  useKeys("Tokens", {
    n: ["next answer of the group", () => go("next")],
    p: ["previous answer of the group", () => go("previous")],
    N: ["next group", () => go("group_next")],
    P: ["previous group", () => go("group_previous")],
    o: ["next overlay", () => turn(1)],
    O: ["previous overlay", () => turn(-1)],
    f: ["to the tokens: then arrows", () => document.getElementById("tokens")?.focus()],
    ...Object.fromEntries(numbered),
  });
}

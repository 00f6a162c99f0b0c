// A group side by side: its prompt once, and every answer to it.
import { ErrorNote, Loading } from "../components/notes.js";
import { href, runPath } from "../lib/addresses.js";
import { runAddress } from "../lib/client.js";
import { number } from "../lib/format.js";
import { html } from "../lib/html.js";
import { useLoaded } from "../lib/loaded.js";
import { plainText } from "../lib/visible_text.js";
import { Episode } from "../rollouts/episode.js";
import { Facts } from "../rollouts/facts.js";
import { Prompt } from "../rollouts/prompt.js";
import { Written } from "../rollouts/written.js";

export function GroupView({ stage, route, client }) {
  const { id, step, group } = route.params;
  const path = runAddress(id, `/rollouts/${step}/group/${encodeURIComponent(group)}`);
  const { content, isOld, error, retry } = useLoaded(client, path, { stage });
  if (error && !isOld) return html`<${ErrorNote} error=${error} retry=${retry} />`;
  if (!content || isOld) return html`<${Loading} what="the group" />`;
  const scores = content.rows.map((row) => row.score).filter((score) => score !== null);
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  return html`
    <section class="panel">
      <h2>Group ${plainText(group)} of step ${step}</h2>
      <p class="dim">${content.rows.length} answers${scores.length > 0 && `, scores from ${number(low)} to ${number(high)}`}</p>
      <${Prompt} prompt=${content.prompt} row=${content.prompt_row} />
    </section>
    <div class="group">
      ${content.rows.map((row) => html`<${Answer} key=${row.row} row=${row} id=${id} stage=${stage} place=${placeOf(row.score, low, high)} />`)}
    </div>`;
}

/** "best" and "worst" of a group whose scores differ. */
function placeOf(score, low, high) {
  if (low === high || score === null) return "";
  return score === high ? "best" : score === low ? "worst" : "";
}

function Answer({ row, id, stage, place }) {
  const link = href({ path: runPath(id, "rollouts", row.step, row.row), params: { stage } });
  return html`
    <section class=${`panel answer ${place}`} aria-label=${`Answer ${row.sample_index + 1}`}>
      <h3><a href=${link}>Answer ${row.sample_index + 1}</a>${place && html` <span class="badge">${place}</span>`}</h3>
      <${Facts} row=${row} more=${Object.entries(row.rewards).map(([part, value]) => [plainText(part), number(value, 4)])} />
      ${row.episode ? html`<${Episode} episode=${row.episode} />` : html`<${Written} text=${row.response} name=${`Text of answer ${row.sample_index + 1}`} />`}
      ${Object.entries(row.failures ?? {}).map(([part, why]) => html`<p class="bad" key=${part}>${plainText(part)}: ${plainText(why)}</p>`)}
    </section>`;
}

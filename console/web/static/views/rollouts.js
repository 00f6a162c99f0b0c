// The answers that were sampled: filters, a histogram of their scores, and a table. All that is chosen stands in the address.
import { Empty, ErrorNote, Loading } from "../components/notes.js";
import { Pager } from "../components/pager.js";
import { runPath } from "../lib/addresses.js";
import { runAddress } from "../lib/client.js";
import { number } from "../lib/format.js";
import { html, useEffect } from "../lib/html.js";
import { useLoaded } from "../lib/loaded.js";
import { Filters, filtersOf } from "../rollouts/filters.js";
import { RolloutsTable } from "../rollouts/rollouts_table.js";
import { ScoreBrush } from "../rollouts/score_brush.js";

const PAGE = 50;

export function RolloutsView({ stage, route, client, navigate }) {
  const { query, params: { id } } = route;
  const offset = Number(query.offset ?? 0);
  const sort = { key: query.sort ?? "step", order: query.order ?? "desc" };
  const asked = { stage, ...filtersOf(query), sort: sort.key, order: sort.order, limit: PAGE, offset };
  const { content, error, isLoading, retry } = useLoaded(client, runAddress(id, "/rollouts"), asked);
  // What is opened from here most often is there before it is asked for.
  useEffect(() => { import("./tokens.js"); }, []);
  const show = (changed, replace = true) => navigate({ path: route.path, params: { ...query, offset: "", ...changed }, replace });
  if (error) return html`<${ErrorNote} error=${error} retry=${retry} />`;
  if (!content) return html`<${Loading} what="rollouts" />`;
  const ofFilter = (name) => (query[name] ? Number(query[name]) : null);
  const ranged = (low, high) => show({ score_min: low ?? "", score_max: high ?? "" });
  const opened = (row) => navigate({ path: runPath(id, "rollouts", row.step, row.row), params: { stage: query.stage } });
  const { histogram } = content;
  return html`
    <section class="panel rollouts" aria-busy=${isLoading}>
      <h2>Rollouts</h2>
      <${Filters} query=${query} choices=${content} onChange=${show} />
      ${histogram.counts.length > 0 && html`
        <${ScoreBrush} edges=${histogram.edges} counts=${histogram.counts} range=${[ofFilter("score_min"), ofFilter("score_max")]} onRange=${ranged} />`}
      <p class="dim" role="status">${countText(content)}</p>
      ${content.rows.length
        ? html`
          <${RolloutsTable} id=${id} stage=${query.stage} rows=${content.rows} parts=${content.parts} sort=${sort}
            onSort=${({ key, order }) => show({ sort: key, order })} onOpen=${opened} />
          <${Pager} offset=${offset} size=${PAGE} total=${content.total} onOffset=${(next) => show({ offset: next || "" }, false)} />`
        : html`<${Empty} title=${content.num_rows ? "No answer passes these filters." : "Nothing has been sampled yet."} />`}
    </section>`;
}

function countText({ total, num_rows: all, sampled_of: sampledOf, is_cut: isCut, searched }) {
  const chosen = total === all || all === undefined ? `${number(total)} answers` : `${number(total)} of ${number(all)} answers`;
  if (sampledOf > all) return `${chosen} in this file, of ${number(sampledOf)} in the run`;
  return isCut ? `${chosen}; the text was looked for in the newest ${number(searched)}` : chosen;
}

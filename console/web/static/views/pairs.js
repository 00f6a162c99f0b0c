// Held-out pairs: chosen against rejected with their margins, the calibration of the scorer, and where it is most wrong.
import { Histogram } from "../components/bars.js";
import { Empty, ErrorNote, Loading } from "../components/notes.js";
import { Pager } from "../components/pager.js";
import { Segmented } from "../components/segmented.js";
import { Tile } from "../components/tile.js";
import { runAddress } from "../lib/client.js";
import { number, percent } from "../lib/format.js";
import { html } from "../lib/html.js";
import { useLoaded } from "../lib/loaded.js";
import { CalibrationPlot } from "../pairs/calibration_plot.js";
import { PairCard } from "../pairs/pair_card.js";

const PAGE = 20;
const SORTS = [
  { value: "disagreement", label: "Worst disagreements" },
  { value: "margin", label: "All, by margin" },
  { value: "index", label: "All, in order" },
];

export function PairsView({ stage, route, client, navigate }) {
  const { query, params: { id } } = route;
  const [sort, offset] = [query.sort ?? SORTS[0].value, Number(query.offset ?? 0)];
  const { content, error, isLoading, retry } = useLoaded(client, runAddress(id, "/pairs"), { stage, sort, limit: PAGE, offset });
  if (error) return html`<${ErrorNote} error=${error} retry=${retry} />`;
  if (!content) return html`<${Loading} what="pairs" />`;
  if (content.available === false) {
    return html`<${Empty} title="This stage has no held-out pairs.">
      <p>Reward models, the DPO family and KTO leave them when a stage with held-out records ends.</p><//>`;
  }
  const show = (changed) => navigate({ path: route.path, params: { ...query, ...changed } });
  const { histogram, calibration, num_rows: numRows, sampled_of: sampledOf } = content;
  return html`
    <section class="panel">
      <h2>Held-out pairs</h2>
      <div class="pairs-head">
        <div class="pairs-tiles">
          <${Tile} title="agrees with the person" value=${percent(content.accuracy)} unit="of the pairs" />
          <${Tile} title="pairs" value=${number(content.total)} unit="held out" />
        </div>
        ${histogram?.counts.length > 0 && html`<${Histogram} label="Margins: below 0 it disagrees" edges=${histogram.edges} counts=${histogram.counts} />`}
        ${calibration?.length > 0 && html`<${CalibrationPlot} bins=${calibration} />`}
      </div>
      ${sampledOf > numRows && html`<p class="dim" role="status">${number(numRows)} pairs in this file, those of the lowest margin, of ${number(sampledOf)} in the run</p>`}
      <${Segmented} label="Show" options=${SORTS} value=${sort} onChange=${(value) => show({ sort: value, offset: "" })} />
    </section>
    <div class="pairs" aria-busy=${isLoading}>
      ${content.rows.map((pair, index) => html`<${PairCard} key=${`${pair.index}-${index}`} pair=${pair} />`)}
      ${content.rows.length === 0 && html`<${Empty} title="No pair on which it disagrees with the person." />`}
      <${Pager} offset=${offset} size=${PAGE} total=${content.matching ?? content.total} onOffset=${(next) => show({ offset: next || "" })} />
    </div>`;
}

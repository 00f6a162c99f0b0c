// All metrics of one or several runs as a grid of charts, with their filter, smoothing and axis.
import { html, useMemo } from "../lib/html.js";
import { MARKS } from "../lib/marks.js";
import { metricWords } from "../lib/metric_words.js";
import { aligned, column, metricNames, nameFilter, smooth, steps } from "../lib/series.js";
import { Chart } from "./chart.js";
import { Swatch } from "./legend.js";
import { Empty } from "./notes.js";

const HEIGHT_PX = 170;
const HELD_OUT = "heldout_";

/**
 * @typedef {object} Source
 * @property {string} name
 * @property {number} index        of its colour and dash
 * @property {object[]} records
 * @property {object} run
 * @property {string} stage
 * @property {object[]} [marks]
 */

/** The series of a metric: a run's value, smoothed, over its faint raw values; of a run alone the held-out value too. */
function seriesOf(sources, name, smoothing) {
  const isAlone = sources.length === 1;
  const wanted = sources.flatMap((source) => {
    const own = { title: isAlone ? "of the step" : source.name, index: source.index, metric: name, source };
    return isAlone ? [own, { ...own, title: "held out", index: 1, metric: HELD_OUT + name }] : [own];
  });
  const found = wanted
    .map((each) => ({ ...each, x: steps(each.source.records), values: column(each.source.records, each.metric) }))
    .filter(({ values }) => values.some((value) => value !== null));
  const { x, columns } = aligned(found);
  const series = found.flatMap(({ title, index }, place) => {
    const values = columns[place];
    const smoothed = { name: title, index, values: smooth(values, smoothing) };
    return smoothing && isAlone ? [{ name: title, index, values, isFaint: true }, smoothed] : [smoothed];
  });
  return { x, series };
}

function MetricChart({ sources, name, smoothing, isLog, marks, onPoint }) {
  const { run, stage } = sources[0];
  const words = metricWords(run, stage, name);
  const { x, series } = useMemo(() => seriesOf(sources, name, smoothing), [sources, name, smoothing]);
  const hasLog = isLog && series.some(({ values }) => values.some((value) => value > 0));
  return html`
    <${Chart} label=${words.title} unit=${isLog && !hasLog ? "not above 0: linear" : words.unit} format=${words.format} x=${x}
      series=${series} marks=${marks} isLog=${hasLog} height=${HEIGHT_PX} sync="steps" onPoint=${onPoint} />`;
}

/** Names whose charts are drawn: a held-out metric stands in the chart of its own where there is one run. */
function chartNames(sources, pattern) {
  const all = metricNames(sources.flatMap(({ records }) => records));
  const { fits, isValid } = nameFilter(pattern);
  const isPaired = (name) => sources.length === 1 && name.startsWith(HELD_OUT) && all.includes(name.slice(HELD_OUT.length));
  const titled = (name) => `${name} ${metricWords(sources[0].run, sources[0].stage, name).title}`;
  return { names: all.filter((name) => fits(titled(name)) && !isPaired(name)), isValid };
}

function Controls({ query, change, isValid, count }) {
  const smoothing = Number(query.smooth ?? 0);
  return html`
    <div class="toolbar" role="search">
      <label>Metrics <input type="search" placeholder="regular expression" value=${query.metrics ?? ""} aria-invalid=${!isValid}
        onInput=${(event) => change({ metrics: event.target.value })} /></label>
      <label>Smoothing <input type="range" min="0" max="0.98" step="0.02" value=${smoothing} onInput=${(event) => change({ smooth: Number(event.target.value) || "" })} />
        <output>${smoothing.toFixed(2)}</output></label>
      <label><input type="checkbox" checked=${query.log === "1"} onChange=${(event) => change({ log: event.target.checked ? 1 : "" })} /> logarithmic</label>
      <label><input type="checkbox" checked=${query.marks !== "0"} onChange=${(event) => change({ marks: event.target.checked ? "" : 0 })} /> marks</label>
      <span class="dim">${isValid ? `${count} charts` : "not a regular expression: taken as letters"}</span>
    </div>`;
}

const MarkLegend = ({ kinds }) => html`
  <ul class="legend">${kinds.map((kind) => html`
    <li key=${kind}><span style=${{ color: `var(${MARKS[kind].colour})` }} aria-hidden="true">${MARKS[kind].glyph}</span> ${MARKS[kind].name}</li>`)}</ul>`;

/**
 * @param {object} props
 * @param {Source[]} props.sources   the same array as long as nothing in it has changed
 * @param {Record<string, string>} props.query          metrics, smooth, log, marks
 * @param {(changed: Record<string, string|number>) => void} props.change
 * @param {(step: number, index: number) => void} [props.onPoint]   index: of the source
 */
export function CurveGrid({ sources, query, change, onPoint }) {
  const { names, isValid } = useMemo(() => chartNames(sources, query.metrics ?? ""), [sources, query.metrics]);
  const marks = useMemo(() => (query.marks === "0" ? [] : sources.flatMap((source) => source.marks ?? [])), [sources, query.marks]);
  const kinds = Object.keys(MARKS).filter((kind) => marks.some((mark) => mark.kind === kind));
  return html`
    <${Controls} query=${query} change=${change} isValid=${isValid} count=${names.length} />
    <div class="keys-row">
      ${sources.length > 1 && html`<ul class="legend">${sources.map(({ name, index }) => html`<li key=${name}><${Swatch} index=${index} /> ${name}</li>`)}</ul>`}
      ${kinds.length > 0 && html`<${MarkLegend} kinds=${kinds} />`}
      ${onPoint && html`<span class="dim">A click on a step opens its rollouts; drag to zoom, double click to zoom out.</span>`}
    </div>
    ${names.length ? null : html`<${Empty} title=${query.metrics ? "No metric fits" : "No steps yet"} />`}
    <div class="charts">
      ${names.map((name) => html`
        <${MetricChart} key=${name} sources=${sources} name=${name} smoothing=${Number(query.smooth ?? 0)} isLog=${query.log === "1"}
          marks=${marks} onPoint=${onPoint} />`)}
    </div>`;
}

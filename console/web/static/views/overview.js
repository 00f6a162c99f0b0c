// How a stage stands: figures with how they went, where its seconds go, what its monitors saw, what came out.
import { StackedBar } from "../components/bars.js";
import { Empty } from "../components/notes.js";
import { Table } from "../components/table.js";
import { StateBadge } from "../components/state_badge.js";
import { Tile } from "../components/tile.js";
import { href, runPath } from "../lib/addresses.js";
import { address, runAddress } from "../lib/client.js";
import { NONE, ago, cost, duration, moment, number, setting } from "../lib/format.js";
import { html, useMemo } from "../lib/html.js";
import { metricWords } from "../lib/metric_words.js";
import { column, newest, rewardInterval } from "../lib/series.js";

/** The figures of a stage, as far as it has them, most telling first. */
const TILES = [
  "reward", "gold_reward", "heldout_loss", "loss", "heldout_accuracy", "accuracy", "margin", "kl", "entropy", "answer_tokens_mean",
  "sampler_gap_mean", "tokens_per_s", "update_kl", "learning_rate",
];
const MOST_TILES = 8;

/** Monitor -> how its evidence is sorted and filtered among the rollouts. */
const EVIDENCE = {
  length_gaming: { sort: "length", order: "desc" },
  over_optimisation: { sort: "score", order: "desc" },
  collapse: { sort: "score", order: "desc" },
};

function Tiles({ run, stage, records }) {
  const last = records[records.length - 1];
  const names = TILES.filter((name) => records.some(({ metrics }) => typeof metrics[name] === "number")).slice(0, MOST_TILES);
  const link = (name) => href({ path: runPath(run.id, "curves"), params: { stage, metrics: `^${name}\\b` } });
  return html`
    <div class="tiles">
      ${names.map((name) => {
        const { title, unit, format } = metricWords(run, stage, name);
        const { value, step } = newest(records, name);
        const half = name === "reward" ? rewardInterval(last) : null;
        return html`<${Tile} key=${name} title=${title} value=${format(value)} unit=${step === last.step ? unit : `${unit} · step ${step}`}
          spread=${half === null ? undefined : `± ${number(half, 2)}`} history=${column(records, name)} link=${link(name)} />`;
      })}
    </div>`;
}

/** Seconds of each phase over all steps, the longest first. */
function phases(records) {
  const totals = new Map();
  for (const { seconds } of records) {
    for (const [phase, value] of Object.entries(seconds ?? {})) totals.set(phase, (totals.get(phase) ?? 0) + (value ?? 0));
  }
  return [...totals].map(([name, value]) => ({ name, value })).filter(({ value }) => value > 0);
}

function Finding({ run, finding }) {
  const { stage, step, name, message, kind, rows } = finding;
  const rollouts = href({ path: runPath(run.id, "rollouts"), params: { stage, step_from: step, step_to: step, ...EVIDENCE[name] } });
  return html`
    <li class=${`finding ${kind}`}>
      <span class=${kind === "alarm" ? "warn" : "dim"} aria-hidden="true">${kind === "alarm" ? "⚠" : "·"}</span>
      <div>
        <p>${name && name !== "note" && html`<strong>${name.replaceAll("_", " ")}</strong> `}${message}</p>
        <p class="dim">${[stage, step && `step ${step}`].filter(Boolean).join(", ")}
          ${step ? html` · <a href=${rollouts}>its rollouts</a>` : null}
          ${rows?.map(({ step: at, row }) => html` · <a key=${`${at}/${row}`} href=${href({ path: runPath(run.id, "rollouts", at, row), params: { stage } })}>row ${row}</a>`)}
        </p>
      </div>
    </li>`;
}

function Findings({ run }) {
  const notes = (run.notes ?? []).map((note) => ({ kind: "note", ...(typeof note === "string" ? { message: note } : note) }));
  const found = [...(run.findings ?? []), ...notes];
  if (!found.length) return html`<${Empty} title="The monitors have found nothing" />`;
  return html`<ul class="findings">${found.map((finding, index) => html`<${Finding} key=${index} run=${run} finding=${finding} />`)}</ul>`;
}

/** One line of a result: an interval, a number or a text. */
function shownValue(value) {
  if (Array.isArray(value) && value.every((each) => typeof each === "number")) return value.map((each) => number(each)).join(" to ");
  return typeof value === "number" ? number(value) : setting(value);
}

/** Figures of the stage's summary, those of objects within it by their path. */
function flatFigures(content, prefix = "") {
  return Object.entries(content ?? {}).flatMap(([name, value]) => {
    if (["monitors", "notes"].includes(name)) return [];
    if (value && typeof value === "object" && !Array.isArray(value)) return flatFigures(value, `${prefix}${name}.`);
    return [[prefix + name, value]];
  });
}

const Facts = ({ facts }) => html`
  <dl class="facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;

function Stages({ run }) {
  const columns = [
    { key: "name", title: "Stage", className: "head", render: ({ name }) => html`<a href=${href({ path: runPath(run.id), params: { stage: name } })}>${name}</a>` },
    { key: "step", title: "Step", align: "right", render: ({ step, num_steps: numSteps }) => (numSteps ? `${step ?? 0} / ${numSteps}` : NONE) },
    { key: "is_finished", title: "State", render: (stage) => html`<${StateBadge} run=${{ state: stage.is_finished ? "finished" : stage.name === run.stage ? run.state : "waiting" }} />` },
  ];
  return html`<${Table} caption="Stages" columns=${columns} rows=${run.stages} rowKey=${({ name }) => name} />`;
}

const runFacts = (run) => [
  ["began", moment(run.began)],
  ["last sign of life", ago(run.updated)],
  ["time", duration(run.seconds)],
  ["cost", cost(run, "hours")],
  ["model", run.model ?? NONE],
  ["kind", run.kind],
  ...Object.entries(run.machine ?? {}).map(([name, value]) => [name.replaceAll("_", " "), setting(value)]),
  ...(run.resumed?.length ? [["resumed", `${run.resumed.length} times`]] : []),
];

export function OverviewView({ run, feed, stage, client }) {
  const { records } = feed;
  const parts = useMemo(() => phases(records), [records]);
  const result = flatFigures(run.summary?.stages?.[stage]).map(([name, value]) => [name.replaceAll("_", " "), shownValue(value)]);
  return html`
    ${run.why && run.state === "stopped" && html`<p class="panel why"><strong>Why it ended</strong> ${run.why} <span class="dim">Resume it with <code>plumbob resume</code>.</span></p>`}
    <section aria-label="Figures">
      ${records.length ? html`<${Tiles} run=${run} stage=${stage} records=${records} />` : html`<${Empty} title=${feed.connection === "loading" ? "Reading the steps…" : "No steps yet"} />`}
    </section>
    ${parts.length > 0 && html`<section class="panel"><h2>Seconds by phase <span class="dim">over ${records.length} steps</span></h2><${StackedBar} label="Seconds by phase" parts=${parts} format=${duration} /></section>`}
    <div class="columns">
      <section class="panel"><h2>Findings</h2><${Findings} run=${run} /></section>
      ${result.length > 0 && html`<section class="panel"><h2>Result of ${stage}</h2><${Facts} facts=${result} /></section>`}
      ${run.stages.length > 1 && html`<section class="panel"><h2>Stages</h2><${Stages} run=${run} /></section>`}
      <section class="panel"><h2>Run</h2><${Facts} facts=${runFacts(run)} />
        ${!client.isStatic && html`<p><a href=${address(runAddress(run.id, "/export.html")).href} download>Export as one file</a></p>`}
      </section>
    </div>`;
}

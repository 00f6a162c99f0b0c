// Several runs on the same axes, and where their settings differ.
import { CurveGrid } from "../components/curve_grid.js";
import { Swatch } from "../components/legend.js";
import { Empty, ErrorNote, Loading } from "../components/notes.js";
import { Segmented } from "../components/segmented.js";
import { Table } from "../components/table.js";
import { comparedIds, href, runPath } from "../lib/addresses.js";
import { runAddress } from "../lib/client.js";
import { number, setting } from "../lib/format.js";
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { withRecords } from "../lib/run_feed.js";
import { metricNames, newest } from "../lib/series.js";

const POLL_MS = 5000;
/** Metrics whose newest values stand in the table. */
const NUM_FIGURES = 12;

/** The stage of a run that is compared: the wanted one where it has it. */
const stageIn = (run, wanted) => (run.stages.some(({ name }) => name === wanted) ? wanted : run.stages[run.stages.length - 1]?.name ?? "");

/** Runs and their settings, read once: {runs, configs, error}. */
function useRunsOf(client, ids) {
  const [state, setState] = useState({ runs: null, configs: null, error: null });
  useEffect(() => {
    const each = (path) => Promise.all(ids.map((id) => client.get(runAddress(id, path))));
    Promise.all([each(""), each("/config")]).then(
      ([runs, configs]) => setState({ runs, configs, error: null }),
      (error) => setState({ runs: null, configs: null, error }),
    );
  }, [client, ids.join()]);
  return state;
}

/** Steps of each run's stage, continued every few seconds while a run is running: a map from id to records. */
function useRecords(client, runs, stage) {
  const [records, setRecords] = useState({});
  useEffect(() => {
    if (!runs) return undefined;
    const cursors = {};
    let [isClosed, timer] = [false, 0];
    const readOne = async ({ id, ...run }) => {
      for (let answer = { more: true }; answer.more && !isClosed;) {
        answer = await client.get(runAddress(id, "/metrics"), { stage: stageIn(run, stage), after: cursors[id] });
        cursors[id] = answer.cursor;
        const { records: added, reset } = answer;
        if (!isClosed && (added.length || reset)) setRecords((before) => ({ ...before, [id]: withRecords(reset ? [] : before[id] ?? [], added) }));
      }
    };
    const readAll = async (some) => {
      await Promise.allSettled(some.map(readOne));
      const growing = runs.filter(({ state }) => state === "running");
      if (!isClosed && growing.length) timer = setTimeout(() => readAll(document.hidden ? [] : growing), POLL_MS);
    };
    setRecords({});
    readAll(runs);
    return () => {
      isClosed = true;
      clearTimeout(timer);
    };
  }, [client, runs, stage]);
  return records;
}

function Figures({ sources }) {
  const names = metricNames(sources.flatMap(({ records }) => records.slice(-1))).slice(0, NUM_FIGURES);
  const columns = [
    { key: "run", title: "Run", className: "head", render: ({ name, index, run, stage }) => html`<${Swatch} index=${index} /> <a href=${href({ path: runPath(run.id), params: { stage } })}>${name}</a>` },
    { key: "step", title: "step", align: "right", render: ({ records }) => number(records[records.length - 1]?.step) },
    ...names.map((name) => ({ key: name, title: name.replaceAll("_", " "), align: "right", render: ({ records }) => number(newest(records, name).value) })),
  ];
  return html`<${Table} caption="Newest figures" columns=${columns} rows=${sources} rowKey=${({ run }) => run.id} />`;
}

/** The settings that are not the same in all runs. */
function differences(configs) {
  const keys = [...new Set(configs.flatMap(({ flat }) => Object.keys(flat)))].sort();
  const isSame = (key) => new Set(configs.map(({ flat }) => (key in flat ? JSON.stringify(flat[key]) : undefined))).size === 1;
  return keys.filter((key) => key !== "name" && !isSame(key));
}

function Differences({ configs, sources }) {
  const keys = differences(configs);
  if (!keys.length) return html`<${Empty} title="The settings are the same" />`;
  const columns = [
    { key: "setting", title: "Setting", className: "wide head mono", render: (key) => key },
    ...sources.map(({ name, run }, place) => ({ key: run.id, title: name, className: "wide mono", render: (key) => (key in configs[place].flat ? setting(configs[place].flat[key]) : "not there") })),
  ];
  return html`<${Table} caption="Settings that differ" columns=${columns} rows=${keys} rowKey=${(key) => key} />`;
}

export function CompareView({ client, route, navigate }) {
  const ids = comparedIds(route.params.ids);
  const { runs, configs, error } = useRunsOf(client, ids);
  const stages = [...new Set((runs ?? []).flatMap((run) => run.stages.map(({ name }) => name)))];
  const stage = route.query.stage ?? stageIn(runs?.[0] ?? { stages: [] });
  const records = useRecords(client, runs, stage);
  const sources = useMemo(() => (runs ?? []).map((run, index) => ({ name: run.name, index, run, stage: stageIn(run, stage), records: records[run.id] ?? [] })), [runs, records, stage]);
  useEffect(() => { document.title = "Compare · Plumbob"; }, []);
  if (error) return html`<${ErrorNote} error=${error} />`;
  if (!runs) return html`<${Loading} what="the runs" />`;
  const change = (changed) => navigate({ path: route.path, params: { ...route.query, ...changed }, replace: true });
  const open = (step, index) => {
    const { run, stage: own } = sources[index];
    navigate({ path: runPath(run.id, "rollouts"), params: { stage: own, step_from: step, step_to: step } });
  };
  return html`
    <div class="toolbar">
      <h1>${runs.length} runs compared</h1>
      ${stages.length > 1 && html`<${Segmented} label="Stage" value=${stage} onChange=${(name) => change({ stage: name })} options=${stages.map((name) => ({ value: name, label: name }))} />`}
    </div>
    <section class="panel"><h2>Newest figures</h2><${Figures} sources=${sources} /></section>
    <section class="panel"><h2>Settings that differ</h2><${Differences} configs=${configs} sources=${sources} /></section>
    <section><h2 class="hidden">Curves</h2><${CurveGrid} sources=${sources} query=${route.query} change=${change} onPoint=${open} /></section>`;
}

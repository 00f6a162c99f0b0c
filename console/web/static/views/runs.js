// All runs of the folder: what each is at, how it does, what it costs. Several are chosen to be compared.
import { Empty, ErrorNote, Loading } from "../components/notes.js";
import { Segmented } from "../components/segmented.js";
import { Progress, StateBadge } from "../components/state_badge.js";
import { Table } from "../components/table.js";
import { comparePath, href, navigate, runPath } from "../lib/addresses.js";
import { NONE, ago, cost, duration, number } from "../lib/format.js";
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { useKeys } from "../lib/keys.js";

const STATES = ["all", "running", "finished", "stopped"];

/** The runs, continued by server-sent events: {runs, error, connection, retry}; runs is null until they are there. */
function useRuns(client) {
  const [state, setState] = useState({ runs: null, error: null, connection: "loading" });
  const read = () => client.get("/api/runs").then(
    ({ runs }) => setState((before) => ({ ...before, runs, error: null })),
    (error) => setState((before) => ({ ...before, error })),
  );
  const change = (next) => setState((before) => (before.runs ? { ...before, runs: next(before.runs) } : before));
  useEffect(() => client.live("/api/live", {}, {
    runs: ({ runs: changed }) => change((runs) => {
      const newer = new Map(changed.map((run) => [run.id, run]));
      return [...runs.map((run) => newer.get(run.id) ?? run), ...changed.filter(({ id }) => !runs.some((run) => run.id === id))];
    }),
    gone: ({ ids }) => change((runs) => runs.filter(({ id }) => !ids.includes(id))),
    connection: (connection) => {
      setState((before) => ({ ...before, connection }));
      read(); // Once the stream is open nothing is missed between; where it is not, this says why.
    },
  }), [client]);
  return { ...state, retry: read };
}

const shared = (run) => `${run.name} ${run.kind} ${run.stage ?? ""} ${run.model ?? ""} ${run.state}`.toLowerCase();

function Name({ run }) {
  return html`
    <a href=${href({ path: runPath(run.id) })}>${run.name}</a>
    ${run.alarms > 0 && html` <span class="warn nowrap" title=${`${run.alarms} alarms of monitors`}>⚠ ${run.alarms}</span>`}
    ${run.damaged && html`<div class="bad small">${run.damaged}</div>`}`;
}

function Step({ run }) {
  if (!run.num_steps) return NONE;
  return html`<span class="nowrap">${run.step} / ${run.num_steps}</span> <${Progress} step=${run.step} numSteps=${run.num_steps} label=${`steps of ${run.name}`} />`;
}

function When({ run }) {
  if (run.state !== "running") return html`<span class="dim nowrap">${ago(run.updated)}</span>`;
  return html`<span class="nowrap">${run.seconds_left === null ? NONE : `${duration(run.seconds_left)} left`}</span>`;
}

function columns(chosen, choose) {
  const box = (run) => html`<input type="checkbox" aria-label=${`compare ${run.name}`} checked=${chosen.has(run.id)} onChange=${() => choose(run)} />`;
  return [
    { key: "chosen", title: "", render: box, className: "tight" },
    { key: "name", title: "Run", isSortable: true, render: (run) => html`<${Name} run=${run} />`, className: "wide head" },
    { key: "state", title: "State", isSortable: true, render: (run) => html`<${StateBadge} run=${run} />` },
    { key: "stage", title: "Stage", isSortable: true, render: (run) => run.stage ?? run.kind },
    { key: "step", title: "Step", isSortable: true, align: "right", render: (run) => html`<${Step} run=${run} />` },
    { key: "reward", title: "Reward", isSortable: true, align: "right", render: (run) => number(run.reward) },
    { key: "kl", title: "KL", isSortable: true, align: "right", render: (run) => number(run.kl) },
    { key: "heldout_loss", title: "Held-out loss", isSortable: true, align: "right", render: (run) => number(run.heldout_loss) },
    { key: "updated", title: "Left / ended", isSortable: true, align: "right", render: (run) => html`<${When} run=${run} />` },
    { key: "seconds", title: "Time", isSortable: true, align: "right", render: (run) => html`<span class="nowrap">${duration(run.seconds)}</span>` },
    { key: "cpu_hours", title: "Cost", isSortable: true, align: "right", render: (run) => html`<span class="nowrap">${cost(run)}</span>` },
    { key: "model", title: "Model", isSortable: true, render: (run) => run.model?.split("/").pop() ?? NONE, className: "wide" },
  ];
}

/** In the order of a column; what is missing stands last whichever way. */
function sorted(runs, { key, order }) {
  const sign = order === "asc" ? 1 : -1;
  const isMissing = (run) => run[key] === null || run[key] === undefined;
  return [...runs].sort((left, right) => {
    if (isMissing(left) || isMissing(right)) return isMissing(left) - isMissing(right);
    return sign * (typeof left[key] === "string" ? left[key].localeCompare(right[key]) : left[key] - right[key]);
  });
}

export function RunsView({ client }) {
  const { runs, error, connection, retry } = useRuns(client);
  const [chosen, setChosen] = useState(new Set());
  const [sort, setSort] = useState({ key: "updated", order: "desc" });
  const [filter, setFilter] = useState("");
  const [state, setState] = useState("all");
  const choose = ({ id }) => setChosen((before) => new Set(before.has(id) ? [...before].filter((other) => other !== id) : [...before, id]));
  const compared = [...chosen].filter((id) => runs?.some((run) => run.id === id));
  const compare = () => compared.length > 1 && navigate({ path: comparePath(compared) });
  useKeys("Runs", { c: ["compare the chosen runs", compare] });
  useEffect(() => { document.title = "Runs · Plumbob"; }, []);
  const shown = useMemo(() => {
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (run) => (state === "all" || run.state === state) && words.every((word) => shared(run).includes(word));
    return sorted((runs ?? []).filter(fits), sort);
  }, [runs, filter, state, sort]);
  if (!runs) return error ? html`<${ErrorNote} error=${error} retry=${retry} />` : html`<${Loading} what="the runs" />`;
  return html`
    <div class="toolbar">
      <h1>Runs</h1>
      <label class="grow"><span class="hidden">Filter runs</span><input type="search" placeholder="name, stage, model" value=${filter} onInput=${(event) => setFilter(event.target.value)} /></label>
      <${Segmented} label="State" value=${state} onChange=${setState} options=${STATES.map((value) => ({ value, label: value }))} />
      <button type="button" class="primary" disabled=${compared.length < 2} onClick=${compare}>Compare${compared.length > 1 ? ` ${compared.length} runs` : ""}</button>
      <span class=${connection === "lost" ? "bad" : "dim"} role="status">${connection === "lost" ? "○ connection lost" : `${shown.length} of ${runs.length}`}</span>
    </div>
    ${error && html`<${ErrorNote} error=${error} retry=${retry} />`}
    ${runs.length === 0 && html`<${Empty} title="No runs in this folder yet"><p>Start one beside it: <code>plumbob run toy</code></p></${Empty}>`}
    ${runs.length > 0 && shown.length === 0 && html`<${Empty} title="No run fits the filter" />`}
    ${shown.length > 0 && html`
      <${Table} caption="Runs" columns=${columns(chosen, choose)} rows=${shown} rowKey=${(run) => run.id} chosen=${chosen}
        sort=${sort} onSort=${setSort} onChoose=${choose} onOpen=${(run) => navigate({ path: runPath(run.id) })} />`}`;
}

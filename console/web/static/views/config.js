// The settings of a run, what each means, where they differ from another run's, and what `plumbob verify` proves of them.
import { Empty, ErrorNote, Loading } from "../components/notes.js";
import { Table } from "../components/table.js";
import { runAddress } from "../lib/client.js";
import { number, setting } from "../lib/format.js";
import { html, useEffect, useMemo, useState } from "../lib/html.js";
import { useLoaded } from "../lib/loaded.js";
import { plainText } from "../lib/visible_text.js";

const isSame = (left, right) => JSON.stringify(left) === JSON.stringify(right);

/** Rows of the table: each key of either run, with what it is here, by default and there. */
function settingRows({ flat, defaults, meanings }, other) {
  const keys = [...new Set([...Object.keys(flat), ...Object.keys(other?.flat ?? {})])].sort();
  return keys.map((key) => ({
    key, value: flat[key], isThere: key in flat, preset: defaults[key], meaning: meanings[key] ?? "",
    isChanged: key in flat && !(key in defaults && isSame(flat[key], defaults[key])),
    otherValue: other?.flat[key], isInOther: key in (other?.flat ?? {}),
    isDifferent: other !== null && !(key in flat && key in other.flat && isSame(flat[key], other.flat[key])),
  }));
}

const Value = ({ value, isThere }) => (isThere ? html`<code>${plainText(setting(value))}</code>` : html`<span class="dim">not there</span>`);

/** What stands between backticks is code. */
const Meaning = ({ text }) => text.split("`").map((part, index) => (index % 2 ? html`<code key=${index}>${part}</code>` : part));

function columnsOf(otherName) {
  return [
    { key: "key", title: "Setting", className: "head", render: (row) => html`<code>${row.key}</code>${row.isChanged && html`<span class="accent" title="not the default"> ●<span class="hidden"> not the default</span></span>`}` },
    { key: "value", title: "Value", className: "half", render: (row) => html`<${Value} value=${row.value} isThere=${row.isThere} />` },
    ...(otherName
      ? [{ key: "other", title: otherName, className: "half", render: (row) => html`<${Value} value=${row.otherValue} isThere=${row.isInOther} />` }]
      : [{ key: "preset", title: "Default", className: "half dim", render: (row) => (row.preset === undefined ? "–" : html`<code>${plainText(setting(row.preset))}</code>`) }]),
    { key: "meaning", title: "Meaning", className: "wide dim", render: (row) => html`<${Meaning} text=${row.meaning} />` },
  ];
}

const shown = (value) => (typeof value === "number" ? number(value) : setting(value));

/** null: `plumbob verify` has not been run, or not of that row. */
function Verdict({ passed }) {
  if (passed === null || passed === undefined) return html`<span class="dim">○ not run</span>`;
  return html`<span class=${passed ? "good" : "bad"}>${passed ? "✓ proven" : "✕ fails"}</span>`;
}

const PROOFS = [
  { key: "passed", title: "", className: "tight", render: ({ passed }) => html`<${Verdict} passed=${passed} />` },
  { key: "setting", title: "Setting", className: "wide head", render: ({ setting: name }) => html`<code>${name}</code>` },
  { key: "row", title: "Row of plumbob verify", className: "wide" },
  { key: "expected", title: "Expected", className: "wide", render: ({ expected }) => shown(expected) },
  { key: "found", title: "Found", className: "wide", render: ({ found }) => (found === null ? "–" : shown(found)) },
];

function Proofs({ proofs }) {
  if (!proofs.length) return html`<${Empty} title="No row of plumbob verify is about settings of this run" />`;
  const isRun = proofs.some(({ passed }) => passed !== null);
  const columns = isRun ? PROOFS : PROOFS.filter(({ key }) => !["passed", "found"].includes(key));
  return html`
    ${!isRun && html`<p class="dim">The rows of <code>plumbob verify</code> about them, each with what is known beforehand. <code>plumbob verify --json > verify.jsonl</code> in the folder of these runs shows here what came out.</p>`}
    <${Table} caption="What plumbob verify proves" columns=${columns} rows=${proofs} rowKey=${({ setting: name, row }) => `${name} ${row}`} />`;
}

function Controls({ query, change, runs, count }) {
  return html`
    <div class="toolbar" role="search">
      <label class="grow"><span class="hidden">Search settings</span><input type="search" placeholder="setting, value or meaning" value=${query.find ?? ""} onInput=${(event) => change({ find: event.target.value })} /></label>
      <label><input type="checkbox" checked=${query.changed === "1"} onChange=${(event) => change({ changed: event.target.checked ? 1 : "" })} /> not the default</label>
      ${runs.length > 0 && html`
        <label>Difference from <select value=${query.with ?? ""} onChange=${(event) => change({ with: event.target.value })}>
          <option value="">no other run</option>
          ${runs.map(({ id, name }) => html`<option key=${id} value=${id}>${name}</option>`)}
        </select></label>`}
      <span class="dim">${count} settings</span>
    </div>`;
}

/** The settings of the other run, where one is chosen: {content, error}. */
function useOther(client, id) {
  const [state, setState] = useState({ content: null, error: null });
  useEffect(() => {
    setState({ content: null, error: null });
    if (!id) return;
    client.get(runAddress(id, "/config")).then((content) => setState({ content, error: null }), (error) => setState({ content: null, error }));
  }, [client, id]);
  return state;
}

export function ConfigView({ run, route, client, navigate }) {
  const { query } = route;
  const { content, error, retry } = useLoaded(client, runAddress(run.id, "/config"));
  const { content: all } = useLoaded(client, "/api/runs");
  const { content: other, error: otherError } = useOther(client, query.with);
  const rows = useMemo(() => (content ? settingRows(content, other) : []), [content, other]);
  const words = (query.find ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const found = rows.filter((row) => {
    const text = `${row.key} ${setting(row.value)} ${row.meaning}`.toLowerCase();
    return words.every((word) => text.includes(word)) && (query.changed !== "1" || row.isChanged) && (!other || row.isDifferent);
  });
  const change = (changed) => navigate({ path: route.path, params: { ...query, ...changed }, replace: true });
  const others = (all?.runs ?? []).filter(({ id }) => id !== run.id);
  const otherName = other && (others.find(({ id }) => id === query.with)?.name ?? query.with);
  if (error) return html`<${ErrorNote} error=${error} retry=${retry} />`;
  if (!content) return html`<${Loading} what="the settings" />`;
  return html`
    <section class="panel"><h2>What <code>plumbob verify</code> proves of the settings in use</h2><${Proofs} proofs=${content.proofs} /></section>
    <section class="panel">
      <h2>Settings${otherName ? ` that differ from ${otherName}` : ""}</h2>
      <${Controls} query=${query} change=${change} runs=${others} count=${found.length} />
      ${otherError && html`<${ErrorNote} error=${otherError} />`}
      ${found.length
        ? html`<${Table} caption="Settings" columns=${columnsOf(otherName)} rows=${found} rowKey=${({ key }) => key} />`
        : html`<${Empty} title=${other ? "The settings are the same" : "No setting fits"} />`}
    </section>`;
}

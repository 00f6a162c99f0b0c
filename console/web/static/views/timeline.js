// What each worker was at over time: busy, idle, loading or lost; above them the policy versions that were published.
import { Empty, ErrorNote, Loading } from "../components/notes.js";
import { Table } from "../components/table.js";
import { TimelineChart } from "../components/timeline_chart.js";
import { runAddress } from "../lib/client.js";
import { bytes, duration, number } from "../lib/format.js";
import { html, useEffect, useMemo } from "../lib/html.js";
import { useLoaded } from "../lib/loaded.js";
import { secondsByState, withIdle } from "../lib/time_axis.js";

const STATES = ["busy", "loading", "idle", "lost"];
const REFRESH_MS = 10_000;

/** The same figures as the picture, for those who do not see it. */
function Shares({ workers }) {
  const share = (state) => ({
    key: state, title: state, align: "right",
    render: ({ spans }) => {
      const totals = secondsByState(spans);
      const whole = Object.values(totals).reduce((sum, value) => sum + value, 0);
      return totals[state] ? html`${number((100 * totals[state]) / whole)} % <span class="dim nowrap">${duration(totals[state])}</span>` : "–";
    },
  });
  const columns = [
    { key: "worker", title: "Worker", className: "head" }, { key: "role", title: "Role" },
    { key: "host", title: "Host", render: ({ host }) => host ?? "–", className: "wide" }, ...STATES.map(share),
  ];
  return html`<${Table} caption="Time of each worker by state" columns=${columns} rows=${workers} rowKey=${({ worker }) => worker} />`;
}

export function TimelineView({ run, stage, client }) {
  const { content, error, retry } = useLoaded(client, runAddress(run.id, "/timeline"), { stage });
  const timeline = useMemo(() => content && { ...content, workers: content.workers.map((worker) => ({ ...worker, spans: withIdle(worker.spans) })) }, [content]);
  useEffect(() => {
    if (run.state !== "running") return undefined;
    const timer = setInterval(() => { if (!document.hidden) retry(); }, REFRESH_MS);
    return () => clearInterval(timer);
  }, [run.state]);
  if (error) return html`<${ErrorNote} error=${error} retry=${retry} />`;
  if (!content) return html`<${Loading} what="the timeline" />`;
  if (!content.workers.length) return html`<${Empty} title="Nothing is known of this stage's workers yet" />`;
  return html`
    <section class="panel">
      <h2>Workers over time</h2>
      <p class="dim">${content.source === "trace"
        ? "From trace.json: what every worker did."
        : "From the record of events and the seconds of phases: start the run with --trace for what every worker did."}
        ${content.more ? " Short spans that follow each other are drawn as one." : ""}
        ${content.unread ? ` The last ${bytes(content.unread)} of it are not read yet: ask again.` : ""}</p>
      ${content.unread ? html`<p><button type="button" onClick=${retry}>Read more</button></p>` : null}
      <${TimelineChart} timeline=${timeline} />
    </section>
    <section class="panel"><h2>Shares</h2><${Shares} workers=${timeline.workers} /></section>`;
}

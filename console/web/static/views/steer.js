// Asks a running run for something, as `plumbob stop` and `plumbob scale` do; and who asked for what, when.
import { Empty } from "../components/notes.js";
import { Table } from "../components/table.js";
import { TokenForm } from "../components/token_form.js";
import { runAddress } from "../lib/client.js";
import { duration, moment } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { eventText, secondsOf } from "../lib/marks.js";
import { plainText } from "../lib/visible_text.js";

/** Events that somebody or something caused from outside of the loop. */
const STEERING = ["started", "resumed", "steered", "draining", "stopped", "failed", "finished"];

const nameOf = (by) => (by && typeof by === "object" ? `${by.user}@${by.host}` : by ?? "–");

/** What was asked for, newest first, with where the run then was. */
function Record({ events }) {
  const began = events.find(({ event }) => event === "started")?.time;
  let step = null;
  const rows = [];
  for (const [index, event] of events.entries()) {
    if (event.event === "saved") step = event.step;
    if (STEERING.includes(event.event)) rows.unshift({ ...event, index, after: step });
  }
  const columns = [
    { key: "time", title: "When", className: "head", render: ({ time }) => html`<span class="nowrap">${moment(time)}</span>` },
    { key: "in", title: "In the run", render: ({ time, after }) => `${began ? duration(Math.max(0, secondsOf(time) - secondsOf(began))) : "–"}${after === null ? "" : `, after step ${after}`}` },
    { key: "by", title: "Who", className: "wide", render: ({ by }) => html`<span title=${by?.process ?? ""}>${plainText(nameOf(by))}</span>` },
    { key: "what", title: "What", className: "wide", render: (event) => plainText(eventText(event)) },
  ];
  if (!rows.length) return html`<${Empty} title="Nothing was asked of this run yet" />`;
  return html`<${Table} caption="Who asked for what" columns=${columns} rows=${rows} rowKey=${({ index }) => String(index)} />`;
}

/** One request: what it does in words, its button, and what it needs. */
function Request({ title, about, button, isDanger, isBusy, onSend, children }) {
  const send = (event) => {
    event.preventDefault();
    onSend();
  };
  return html`
    <form class="request" onSubmit=${send}>
      <h3>${title}</h3><p class="dim">${about}</p>
      <div class="toolbar">${children}<button type="submit" class=${isDanger ? "danger" : "primary"} disabled=${isBusy}>${button}</button></div>
    </form>`;
}

/** Asks a second time before it stops the run. */
function Stop({ isBusy, ask }) {
  const [isSure, setSure] = useState(false);
  const send = () => {
    if (isSure) ask({ action: "stop" });
    setSure(!isSure);
  };
  return html`
    <${Request} title="Stop" about="It stops before it samples or learns again, where little is lost; it can be resumed."
      button=${isSure ? "Yes, stop it" : "Stop the run"} isDanger=${true} isBusy=${isBusy} onSend=${send}>
      ${isSure && html`<button type="button" onClick=${() => setSure(false)}>No, let it run</button>`}
    </${Request}>`;
}

function Requests({ run, client, onRefused }) {
  const [workers, setWorkers] = useState("");
  const [host, setHost] = useState("");
  const [state, setState] = useState({ isBusy: false, message: "", error: null });
  const ask = (body) => {
    setState({ isBusy: true, message: "", error: null });
    client.post(runAddress(run.id, "/steer"), body).then(
      ({ message }) => setState({ isBusy: false, message, error: null }),
      (error) => {
        setState({ isBusy: false, message: "", error });
        if (error.needsToken) onRefused();
      },
    );
  };
  const { isBusy, message, error } = state;
  return html`
    <div class="requests">
      <${Request} title="Save now" about="A checkpoint after the step in progress, besides those that it makes anyway." button="Save" isBusy=${isBusy} onSend=${() => ask({ action: "save" })} />
      <${Request} title="Scale" about="Another number of rollout workers; those that go finish their responses first." button="Scale"
        isBusy=${isBusy || !(Number(workers) >= 1)} onSend=${() => ask({ action: "scale", rollout_workers: Number(workers) })}>
        <label>Rollout workers <input type="number" min="1" step="1" required value=${workers} onInput=${(event) => setWorkers(event.target.value)} /></label>
      </${Request}>
      <${Request} title="Leave a host" about="Its rollout workers and scorers finish their work and others start elsewhere; learners stay." button="Leave it"
        isBusy=${isBusy || !host.trim()} onSend=${() => ask({ action: "leave", host: host.trim() })}>
        <label>Host <input type="text" required value=${host} onInput=${(event) => setHost(event.target.value)} /></label>
      </${Request}>
      <${Stop} isBusy=${isBusy} ask=${ask} />
    </div>
    <p role="status" class="good">${message}</p>
    ${error && html`<p class="bad" role="alert">${error.message}</p>`}`;
}

export function SteerView({ run, feed, client, session }) {
  const [canSteer, setCanSteer] = useState(session.can_steer);
  const asks = canSteer
    ? html`<section class="panel"><h2>Ask the run for something</h2><${Requests} run=${run} client=${client} onRefused=${() => setCanSteer(false)} /></section>`
    : html`<${TokenForm} client=${client} why="Steering changes a run, so it asks for one." onDone=${() => setCanSteer(true)} />`;
  return html`
    ${run.state === "running" ? asks : html`<p class="panel">The run is ${run.state}: there is nothing to steer.${run.state === "stopped" ? html` Resume it with <code>plumbob resume</code>.` : ""}</p>`}
    <section class="panel"><h2>Who asked for what</h2><${Record} events=${feed.events} /></section>`;
}

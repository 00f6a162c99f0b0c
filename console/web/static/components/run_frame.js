// What stands around every view of a run: its name and state, its stages, the tabs.
import { href, navigate, runPath } from "../lib/addresses.js";
import { duration } from "../lib/format.js";
import { html, useEffect, useRef } from "../lib/html.js";
import { useKeys } from "../lib/keys.js";
import { stageOf, useFeed, useRun } from "../lib/run_feed.js";
import { VIEWS } from "../lib/view_table.js";
import { ErrorNote, Loading } from "./notes.js";
import { Segmented } from "./segmented.js";
import { Progress, StateBadge } from "./state_badge.js";

const TABS = Object.entries(VIEWS).filter(([, { tab }]) => tab);

const tabPath = (id, tab) => (tab === "overview" ? runPath(id) : runPath(id, tab));

const CONNECTIONS = {
  live: ["good", "● live", "steps appear here as the run makes them"],
  lost: ["bad", "○ connection lost", "tried again by itself; what is shown may be old"],
  loading: ["dim", "… loading", ""],
  ended: ["dim", "", ""],
};

function Connection({ state }) {
  const [tone, text, title] = CONNECTIONS[state];
  return html`<span class=${`connection ${tone}`} role="status" title=${title}>${text}</span>`;
}

function Where({ run, feed, stage }) {
  const last = feed.records[feed.records.length - 1];
  const own = run.stages.find(({ name }) => name === stage);
  const [step, numSteps] = [last?.step ?? own?.step ?? run.step, last?.num_steps ?? own?.num_steps ?? run.num_steps];
  const isRunning = run.state === "running" && (run.stage ?? stage) === stage;
  return html`
    <div class="where">
      <${StateBadge} run=${run} />
      ${numSteps ? html`<${Progress} step=${step} numSteps=${numSteps} label="steps" /><span class="nowrap">step ${step} of ${numSteps}</span>` : null}
      ${isRunning && run.seconds_left !== null && html`<span class="nowrap">${duration(run.seconds_left)} left</span>`}
      <span class="nowrap dim">${run.state === "running" ? `${duration(run.seconds)} so far` : `took ${duration(run.seconds)}`}</span>
      <${Connection} state=${run.state === "running" || feed.connection !== "live" ? feed.connection : "ended"} />
    </div>`;
}

function Tabs({ run, view, stage, isStatic }) {
  const tabs = TABS.filter(([, { needsServer }]) => !isStatic || !needsServer);
  const current = VIEWS[view].within ?? view;
  const open = (by) => {
    const index = tabs.findIndex(([name]) => name === current);
    const [name] = tabs[(index + by + tabs.length) % tabs.length];
    navigate({ path: tabPath(run.id, name), params: { stage } });
  };
  useKeys("This run", { "[": ["the tab before", () => open(-1)], "]": ["the next tab", () => open(1)] });
  const bar = useRef(null);
  useEffect(() => bar.current.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }), [current]);
  return html`
    <nav ref=${bar} class="tabs" aria-label="Views of this run">
      ${tabs.map(([name, { tab }]) => html`
        <a key=${name} href=${href({ path: tabPath(run.id, name), params: { stage } })} aria-current=${name === current ? "page" : undefined}>${tab}</a>`)}
    </nav>`;
}

export function RunFrame({ View, route, client, navigate: go, session }) {
  const { run, error, retry, update } = useRun(client, route.params.id);
  const stage = run && stageOf(run, route);
  const onRun = (changed) => {
    if (["state", "stage", "alarms"].some((name) => changed[name] !== run[name])) retry();
    else update(changed);
  };
  const feed = useFeed(client, route.params.id, stage, onRun);
  useEffect(() => { document.title = `${run?.name ?? route.params.id} · ${route.view} · Plumbob`; }, [run?.name, route.view]);
  if (!run) {
    return html`<main id="content" tabindex="-1">${error ? html`<${ErrorNote} error=${error} retry=${retry} />` : html`<${Loading} what="the run" />`}</main>`;
  }
  const chooseStage = (name) => go({ path: route.path, params: { stage: name } });
  return html`
    <section class="run-head" aria-label="This run">
      <h1>${run.name}</h1>
      <${Where} run=${run} feed=${feed} stage=${stage} />
      ${run.stages.length > 1 && VIEWS[route.view].ofStages && html`
        <${Segmented} label="Stage" value=${stage} onChange=${chooseStage}
          options=${run.stages.map(({ name, is_finished: isFinished }) => ({ value: name, label: isFinished ? `${name} ✓` : name }))} />`}
      <${Tabs} run=${run} view=${route.view} stage=${route.query.stage} isStatic=${client.isStatic} />
    </section>
    <main id="content" tabindex="-1">
      ${error && html`<${ErrorNote} error=${error} retry=${retry} />`}
      ${feed.error && html`<${ErrorNote} error=${feed.error} />`}
      ${View ? html`<${View} run=${run} feed=${feed} stage=${stage} route=${route} client=${client} navigate=${go} session=${session} />` : html`<${Loading} />`}
    </main>`;
}

// Where the pages begin: an address becomes a view, inside the frame that all of them share.
import { ErrorNote, Loading } from "./components/notes.js";
import { Header } from "./components/header.js";
import { RunFrame } from "./components/run_frame.js";
import { serverClient } from "./lib/client.js";
import { exportClient } from "./lib/export_client.js";
import { html, render, useEffect, useState } from "./lib/html.js";
import { navigate, runPath, useRoute } from "./lib/router.js";

/** Name of a view in the router -> its component, loaded when it is first shown. */
const VIEWS = {
  runs: () => import("./views/runs.js").then((module) => module.RunsView),
  compare: () => import("./views/compare.js").then((module) => module.CompareView),
  overview: () => import("./views/overview.js").then((module) => module.OverviewView),
  curves: () => import("./views/curves.js").then((module) => module.CurvesView),
  rollouts: () => import("./views/rollouts.js").then((module) => module.RolloutsView),
  group: () => import("./views/group.js").then((module) => module.GroupView),
  tokens: () => import("./views/tokens.js").then((module) => module.TokensView),
  pairs: () => import("./views/pairs.js").then((module) => module.PairsView),
  timeline: () => import("./views/timeline.js").then((module) => module.TimelineView),
  config: () => import("./views/config.js").then((module) => module.ConfigView),
  steer: () => import("./views/steer.js").then((module) => module.SteerView),
  logs: () => import("./views/logs.js").then((module) => module.LogsView),
};

/** The component of a view, null until it is loaded. */
function useView(name) {
  const [loaded, setLoaded] = useState({ name: null, View: null });
  useEffect(() => {
    let isCurrent = true;
    VIEWS[name]().then((View) => isCurrent && setLoaded({ name, View }));
    return () => { isCurrent = false; };
  }, [name]);
  return loaded.name === name ? loaded.View : null;
}

function App({ client, onlyRun }) {
  const route = useRoute();
  const [session, setSession] = useState(null);
  const [error, setError] = useState(null);
  const View = useView(route.view);
  const open = () => {
    setError(null);
    client.get("/api/session").then(setSession, setError);
  };
  useEffect(open, [client]);
  useEffect(() => {
    if (onlyRun && !route.params.id) navigate({ path: runPath(onlyRun), replace: true });
  }, [route.path]);
  const shared = { route, client, navigate, session };
  return html`
    <a class="skip" href=${location.hash || "#/"} onClick=${(event) => { event.preventDefault(); document.getElementById("content").focus(); }}>Skip to the content</a>
    <${Header} session=${session} isStatic=${client.isStatic} />
    ${error && html`<main id="content" tabindex="-1"><${ErrorNote} error=${error} retry=${open} /></main>`}
    ${session && (route.params.id
      ? html`<${RunFrame} key=${route.params.id} View=${View} ...${shared} />`
      : html`<main id="content" tabindex="-1">${View ? html`<${View} ...${shared} />` : html`<${Loading} />`}</main>`)}`;
}

const exported = document.getElementById("exported-run");
const data = exported && JSON.parse(exported.textContent);
const client = data ? exportClient(data) : serverClient();
render(html`<${App} client=${client} onlyRun=${data?.run} />`, document.getElementById("app"));

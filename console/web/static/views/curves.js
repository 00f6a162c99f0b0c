// All metrics of a stage over its steps, with what happened as marks.
import { CurveGrid } from "../components/curve_grid.js";
import { href, runPath } from "../lib/addresses.js";
import { html, useMemo } from "../lib/html.js";
import { marksOf } from "../lib/marks.js";

/** Stages that leave no rollouts have no page for a step. */
const hasRollouts = (records) => records.some(({ metrics }) => "num_answers" in metrics);

export function CurvesView({ run, feed, stage, route, navigate }) {
  const sources = useMemo(() => {
    const marks = marksOf(feed.events, feed.records, stage, run.findings);
    return [{ name: run.name, index: 0, records: feed.records, run, stage, marks }];
  }, [feed.records, feed.events, stage, run.findings]);
  const change = (changed) => navigate({ path: route.path, params: { ...route.query, ...changed }, replace: true });
  const open = (step) => navigate({ path: runPath(run.id, "rollouts"), params: { stage, step_from: step, step_to: step } });
  return html`
    <h2 class="hidden">Curves of ${stage}</h2>
    <${CurveGrid} sources=${sources} query=${route.query} change=${change} onPoint=${hasRollouts(feed.records) ? open : undefined} />
    <p><a href=${href({ path: "/", params: { chosen: run.id } })}>Compare with other runs</a></p>`;
}

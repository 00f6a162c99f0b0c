// The views, one row each: a new page is a module in views/ and its row here.

/**
 * @typedef {object} ViewRow
 * @property {string} pattern   of its path: parts that begin with a colon are named
 * @property {() => Promise<Function>} load   gives its component; called when it is first shown
 * @property {string} [tab]     title of its tab among the views of a run
 * @property {string} [within]  the view whose tab it is below
 * @property {boolean} [needsServer]   whether an exported run is without it
 * @property {boolean} [ofStages]      whether each stage of a run has its own
 */

/** @type {Record<string, ViewRow>} in the order of the tabs */
export const VIEWS = {
  runs: { pattern: "/", load: () => import("../views/runs.js").then((module) => module.RunsView) },
  compare: { pattern: "/compare/:ids", load: () => import("../views/compare.js").then((module) => module.CompareView) },
  overview: {
    pattern: "/run/:id", load: () => import("../views/overview.js").then((module) => module.OverviewView),
    tab: "Overview", ofStages: true,
  },
  curves: {
    pattern: "/run/:id/curves", load: () => import("../views/curves.js").then((module) => module.CurvesView),
    tab: "Curves", ofStages: true,
  },
  rollouts: {
    pattern: "/run/:id/rollouts", load: () => import("../views/rollouts.js").then((module) => module.RolloutsView),
    tab: "Rollouts", ofStages: true,
  },
  group: {
    pattern: "/run/:id/rollouts/:step/group/:group", load: () => import("../views/group.js").then((module) => module.GroupView),
    within: "rollouts",
  },
  tokens: {
    pattern: "/run/:id/rollouts/:step/:row", load: () => import("../views/tokens.js").then((module) => module.TokensView),
    within: "rollouts",
  },
  pairs: {
    pattern: "/run/:id/pairs", load: () => import("../views/pairs.js").then((module) => module.PairsView),
    tab: "Pairs", ofStages: true,
  },
  timeline: {
    pattern: "/run/:id/timeline", load: () => import("../views/timeline.js").then((module) => module.TimelineView),
    tab: "Timeline", ofStages: true, needsServer: true,
  },
  config: {
    pattern: "/run/:id/config", load: () => import("../views/config.js").then((module) => module.ConfigView),
    tab: "Config",
  },
  steer: {
    pattern: "/run/:id/steer", load: () => import("../views/steer.js").then((module) => module.SteerView),
    tab: "Steer", needsServer: true,
  },
  logs: {
    pattern: "/run/:id/logs", load: () => import("../views/logs.js").then((module) => module.LogsView),
    tab: "Logs", needsServer: true,
  },
};

// One run as it goes: what it is, its steps and its events, each read once and then continued by server-sent events.
import { runAddress } from "./client.js";
import { useEffect, useRef, useState } from "./html.js";

/**
 * @typedef {object} Feed
 * @property {object[]} records   one a step, in order of steps: {step, num_steps, metrics, seconds, time}
 * @property {object[]} events    as in events.jsonl, oldest first
 * @property {"loading"|"live"|"lost"|"ended"} connection
 * @property {Error} [error]
 */

const NOTHING = { records: [], events: [], connection: "loading", error: null };

/** Steps in order. A resumed run makes the steps after its checkpoint again: those that were there are replaced. */
export function withRecords(records, added) {
  let all = records;
  for (const record of added) {
    if (all.length && record.step <= all[all.length - 1].step) all = all.filter(({ step }) => step < record.step);
    else if (all === records) all = [...records];
    all.push(record);
  }
  return all;
}

/** The stage that the address names, else the one that is in progress, else the last one; of those two one with steps. */
export function stageOf({ stages, stage }, route) {
  if (stages.some(({ name }) => name === route.query.stage)) return route.query.stage;
  const withSteps = stages.filter(({ num_steps: numSteps }) => numSteps);
  const current = withSteps.find(({ name }) => name === stage) ?? withSteps[withSteps.length - 1];
  return (current ?? stages[stages.length - 1])?.name ?? "";
}

/** What /api/runs/ID says: {run, error, retry, update}. `retry` reads it again, `update` puts newer fields over it. */
export function useRun(client, id) {
  const [state, setState] = useState({ run: null, error: null });
  const retry = () => {
    client.get(runAddress(id)).then(
      (run) => setState({ run, error: null }),
      (error) => setState((before) => ({ ...before, error })),
    );
  };
  useEffect(retry, [client, id]);
  const update = (changed) => setState((before) => ({ ...before, run: { ...before.run, ...changed } }));
  return { ...state, retry, update };
}

/** Reads a file of lines part by part until nothing is left: `take` gets each answer. */
async function readAll(client, path, params, take) {
  for (let answer = { more: true }; answer.more;) {
    answer = await client.get(path, { ...params, after: answer.cursor });
    take(answer);
  }
}

/**
 * Follows one stage of a run until it is closed.
 * @param {(change: (feed: Feed) => Partial<Feed>) => void} update   gets each change of the feed
 * @returns {() => void} closes it
 */
function follow(client, id, stage, update, onRun) {
  const path = runAddress(id);
  const cursors = {};
  let [close, isClosed] = [() => {}, false];
  const change = (next) => { if (!isClosed) update(next); };
  // A file that was cut back, as a resumed run does, is given again from its beginning.
  const take = {
    metrics: ({ records, cursor, reset }) => {
      cursors.metrics = cursor;
      change((feed) => ({ records: withRecords(reset ? [] : feed.records, records) }));
    },
    events: ({ events, cursor, reset }) => {
      cursors.events = cursor;
      change((feed) => ({ events: [...(reset ? [] : feed.events), ...events] }));
    },
    run: (run) => { if (!isClosed) onRun(run); },
    connection: (connection) => change(() => ({ connection, error: null })),
  };
  const begin = async () => {
    try {
      await Promise.all([
        readAll(client, `${path}/metrics`, { stage }, take.metrics),
        readAll(client, `${path}/events`, {}, take.events),
      ]);
      if (client.isStatic) take.connection("ended");
      else if (!isClosed) close = client.live(`${path}/live`, () => ({ stage, ...cursors }), take);
    } catch (error) {
      change(() => ({ error, connection: "lost" }));
    }
  };
  begin();
  return () => {
    isClosed = true;
    close();
  };
}

/**
 * @param {string|null} stage   null while it is not known yet
 * @param {(run: object) => void} onRun   gets the run whenever it has changed
 * @returns {Feed} of that stage
 */
export function useFeed(client, id, stage, onRun) {
  const [feed, setFeed] = useState(NOTHING);
  const newest = useRef(onRun);
  newest.current = onRun;
  useEffect(() => {
    setFeed(NOTHING);
    if (stage === null) return undefined;
    const update = (change) => setFeed((before) => ({ ...before, ...change(before) }));
    return follow(client, id, stage, update, (run) => newest.current(run));
  }, [client, id, stage]);
  return feed;
}

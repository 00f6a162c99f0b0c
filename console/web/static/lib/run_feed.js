// One run as it goes: what it is, its steps and its events, each read once and then continued by server-sent events.
import { useEffect, useRef, useState } from "./html.js";

/**
 * @typedef {object} Feed
 * @property {object[]} records   one a step, in order of steps: {step, num_steps, metrics, seconds}
 * @property {object[]} events    as in events.jsonl, oldest first
 * @property {"loading"|"live"|"lost"|"ended"} connection
 */

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

/** The stage that the address names, else the one that is going on, else the last one. */
export function stageOf(run, route) {
  const names = run.stages.map(({ name }) => name);
  if (names.includes(route.query.stage)) return route.query.stage;
  return names.includes(run.stage) ? run.stage : names[names.length - 1] ?? "";
}

/** @returns {{run: object|null, error: Error|null, retry: () => void}} what /api/runs/ID says, read again when told to */
export function useRun(client, id) {
  const [state, setState] = useState({ run: null, error: null });
  const read = () => client.get(`/api/runs/${id}`).then(
    (run) => setState({ run, error: null }),
    (error) => setState((before) => ({ ...before, error })),
  );
  useEffect(() => { read(); }, [client, id]);
  const update = (changed) => setState((before) => ({ ...before, run: { ...before.run, ...changed } }));
  return { ...state, retry: read, update };
}

/**
 * @param {{onRun: (run: object) => void}} handlers   gets the run whenever it has changed
 * @returns {Feed} of that stage
 */
export function useFeed(client, id, stage, { onRun }) {
  const [feed, setFeed] = useState({ stage, records: [], events: [], connection: "loading" });
  const cursors = useRef({ metrics: 0, events: 0 });
  const changed = useRef(onRun);
  changed.current = onRun;
  useEffect(() => {
    if (stage === null) return undefined;
    let [close, isClosed] = [() => {}, false];
    const update = (next) => !isClosed && setFeed((before) => ({ ...before, ...next(before) }));
    const take = {
      metrics: ({ records, cursor }) => {
        cursors.current.metrics = cursor;
        update((before) => ({ records: withRecords(before.records, records) }));
      },
      events: ({ events, cursor }) => {
        cursors.current.events = cursor;
        update((before) => ({ events: [...before.events, ...events] }));
      },
      run: (run) => changed.current(run),
      connection: (connection) => update(() => ({ connection })),
    };
    cursors.current = { metrics: 0, events: 0 };
    setFeed({ stage, records: [], events: [], connection: "loading" });
    const path = `/api/runs/${id}`;
    Promise.all([client.get(`${path}/metrics`, { stage, after: 0 }), client.get(`${path}/events`, { after: 0 })]).then(
      ([metrics, events]) => {
        if (isClosed) return;
        take.metrics(metrics);
        take.events(events);
        if (client.isStatic) take.connection("ended");
        else close = client.live(`${path}/live`, () => ({ stage, ...cursors.current }), take);
      },
      (error) => update(() => ({ error, connection: "lost" })),
    );
    return () => {
      isClosed = true;
      close();
    };
  }, [client, id, stage]);
  return feed;
}

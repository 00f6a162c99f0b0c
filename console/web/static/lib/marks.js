// What happened in a run, as marks on its curves.

/** Event -> kind of mark. */
const KINDS = {
  lost: "fault", replaced: "fault", failed: "fault", refused: "fault", stopped: "fault",
  steered: "steer", draining: "steer", resumed: "steer",
  saved: "save",
};

/** Kind -> its name in the legend, its glyph on the curve and its colour. */
export const MARKS = {
  alarm: { name: "alarms", glyph: "!", colour: "--warn" },
  fault: { name: "faults", glyph: "✕", colour: "--bad" },
  steer: { name: "steering", glyph: "◆", colour: "--series-4" },
  save: { name: "checkpoints", glyph: "▴", colour: "--dim" },
};

/** One line about an event: "lost rollout-1: its process is gone". */
export function eventText(event) {
  const what = event.worker ?? event.slot ?? event.what ?? event.folder ?? event.hosts?.join?.(", ") ?? "";
  return [event.event, what, event.why && `: ${event.why}`].filter(Boolean).join(" ").replace(" :", ":");
}

export const secondsOf = (time) => (typeof time === "number" ? time : Date.parse(time) / 1000);

/** The step in progress at a time: the first that ended after it. */
function stepAt(records, time) {
  let [low, high] = [0, records.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (records[middle].time < time) low = middle + 1;
    else high = middle;
  }
  return records[Math.min(low, records.length - 1)]?.step ?? null;
}

/** @returns {{x: number, kind: string, text: string}[]} of the events that belong to the stage of these records */
export function marksOf(events, records, stage, findings = []) {
  const marks = findings
    .filter((finding) => finding.kind === "alarm" && finding.stage === stage && finding.step)
    .map(({ step, name, message }) => ({ x: step, kind: "alarm", text: `${name}: ${message}` }));
  let current = null;
  for (const event of events) {
    if (event.event === "stage_began") current = event.stage;
    const kind = KINDS[event.event];
    if (!kind || (event.stage ?? current ?? stage) !== stage) continue;
    const x = event.step ?? stepAt(records, secondsOf(event.time));
    if (x !== null) marks.push({ x, kind, text: eventText(event) });
  }
  return marks;
}

// What people call a metric, as the server says; one that nobody has named, by its own words.
import { number, percent } from "./format.js";
import { SECONDS } from "./series.js";

/** @returns {{title: string, unit: string, format: (value: number|null) => string}} of a metric of that stage */
export function metricWords(run, stage, name) {
  const known = run.metric_names?.[stage]?.[name];
  if (known) {
    const unit = known.is_share ? known.unit.replace(/^%\s*/, "") : known.unit;
    return { title: known.title, unit, format: known.is_share ? percent : number };
  }
  if (name.startsWith(SECONDS)) return { title: name.slice(SECONDS.length), unit: "seconds per step", format: number };
  return { title: name.replaceAll("_", " "), unit: "", format: number };
}

// Numbers, times and sizes as people read them. What is missing is a dash.

export const NONE = "–";

const isMissing = (value) => value === null || value === undefined || Number.isNaN(value);

/** Of three or four digits: 1,234 · 12.3 · 0.00123 · 8.6e-6. */
export function number(value, digits = 3) {
  if (isMissing(value)) return NONE;
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return value.toLocaleString("en-US");
  if (size >= 1e7 || (size < 1e-3 && size > 0)) return value.toExponential(Math.max(0, digits - 2)).replace("e+", "e");
  if (size >= 1000) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(digits)));
}

/** With its sign: +1.2, -0.3. */
export const signed = (value, digits) => (value > 0 ? "+" : "") + number(value, digits);

/** A share of 1 in percent. */
export const percent = (share) => (isMissing(share) ? NONE : `${number(100 * share)} %`);

/** A duration: 8.2 s · 3 min 20 s · 1 h 05 min · 2 d 03 h. */
export function duration(seconds) {
  if (isMissing(seconds)) return NONE;
  if (seconds < 60) return `${number(seconds, 2)} s`;
  const whole = Math.round(seconds);
  const [minutes, hours, days] = [Math.floor(whole / 60), Math.floor(whole / 3600), Math.floor(whole / 86400)];
  const rest = (count, unit) => (count ? ` ${String(count).padStart(2, "0")} ${unit}` : "");
  if (hours < 1) return `${minutes} min${rest(whole % 60, "s")}`;
  if (days < 1) return `${hours} h${rest(minutes % 60, "min")}`;
  return `${days} d${rest(hours % 24, "h")}`;
}

/** How long ago a time (seconds since the epoch) was. */
export function ago(time, now = Date.now() / 1000) {
  if (isMissing(time)) return NONE;
  return now - time < 5 ? "now" : `${duration(now - time).split(" ").slice(0, 2).join(" ")} ago`;
}

/** Local date and time of seconds since the epoch or of ISO 8601: 2026-12-01 03:14:39. */
export function moment(time) {
  if (isMissing(time)) return NONE;
  const date = typeof time === "number" ? new Date(1000 * time) : new Date(time);
  const local = new Date(date.getTime() - 60_000 * date.getTimezoneOffset());
  return local.toISOString().slice(0, 19).replace("T", " ");
}

/** The time of day alone. */
export const clock = (time) => (isMissing(time) ? NONE : moment(time).slice(11));

/** What workers had reserved for how long: 1.2 CPU h, 0.4 GPU h. `unit`: behind CPU and GPU. */
export function cost({ cpu_hours: cpu, gpu_hours: gpu }, unit = "h") {
  const parts = [[cpu, "CPU"], [gpu, "GPU"]].filter(([hours, name]) => !isMissing(hours) && (hours > 0 || name === "CPU"));
  return parts.map(([hours, name]) => `${number(hours)} ${name} ${unit}`).join(", ") || NONE;
}

export function bytes(count) {
  if (isMissing(count)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, count > 0 ? Math.floor(Math.log(count) / Math.log(1024)) : 0);
  return `${number(count / 1024 ** power)} ${units[power]}`;
}

/** A setting's value on one line. */
export const setting = (value) => (typeof value === "string" ? value : JSON.stringify(value) ?? NONE);

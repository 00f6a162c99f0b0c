// All numbers of one token, by name, as they are shown.
import { NONE } from "../lib/format.js";

/** Of the row route's `tokens`: what a field is called where one token's numbers are listed. */
const NAMES = [
  ["logprob", "log-prob"],
  ["learner_logprob", "learner log-prob"],
  ["ref_logprob", "reference log-prob"],
  ["teacher_logprob", "teacher log-prob"],
  ["entropy", "entropy"],
  ["advantage", "advantage"],
  ["reward", "reward"],
  ["return", "return"],
  ["value", "value"],
  ["td_error", "TD error"],
  ["kl", "KL to reference"],
  ["sampler_gap", "sampler gap"],
  ["ratio", "importance ratio"],
];

/** Four digits after the point, or a power of ten where those would hide the number. */
export function tokenNumber(value) {
  if (value === null || value === undefined) return NONE;
  const size = Math.abs(value);
  return value !== 0 && (size < 0.001 || size >= 1e6) ? value.toExponential(2) : value.toFixed(4);
}

/**
 * @returns {[string, string][]} name and text of everything that is known of the token at `index`. What the run has for no
 *     token is left out; what stands in a list for a token that the policy did not write says nothing.
 */
export function numbersOf(tokens, index) {
  const isWritten = tokens.mask[index];
  const numberOf = (field) => (isWritten ? tokens[field][index] : null);
  const numbers = NAMES.filter(([field]) => tokens[field]).map(([field, name]) => [name, tokenNumber(numberOf(field))]);
  if (tokens.logprob) {
    const logprob = numberOf("logprob");
    numbers.splice(1, 0, ["probability", logprob === null ? NONE : `${(100 * Math.exp(logprob)).toFixed(2)} %`]);
  }
  if (tokens.clipped) numbers.push(["clipped", !isWritten ? NONE : tokens.clipped[index] ? "yes" : "no"]);
  numbers.push(["written by", isWritten ? "the policy" : "not the policy: masked"]);
  numbers.push(["version", tokens.version[index] < 0 ? NONE : String(tokens.version[index])]);
  numbers.push(["id", String(tokens.id[index])]);
  return numbers;
}

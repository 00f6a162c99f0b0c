// Columns of numbers made of a run's records, one value a step; null where a step has none.

/** What people look at first, in this order; others follow by name. */
const FIRST = [
  "reward", "gold_reward", "return_mean", "loss", "heldout_loss", "accuracy", "heldout_accuracy", "margin", "kl", "entropy",
  "answer_tokens_mean", "sampler_gap_mean", "sampler_gap_max", "tokens_per_s", "update_kl", "clipped_share", "policy_loss",
  "value_loss", "explained_variance",
];

/** Of the 95 % interval of a mean: the normal distribution's. */
const STANDARD_ERRORS = 1.96;

/** Before the name of a phase whose seconds are shown among the metrics. */
export const SECONDS = "seconds: ";

function byImportance(left, right) {
  const rank = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length + (name.startsWith(SECONDS) ? 1 : 0));
  return rank(left) - rank(right) || left.localeCompare(right);
}

/** Names of all metrics, and of the phases' seconds, that any record has. */
export function metricNames(records) {
  const names = new Set();
  for (const { metrics, seconds } of records) {
    for (const name of Object.keys(metrics)) names.add(name);
    for (const phase of Object.keys(seconds ?? {})) names.add(SECONDS + phase);
  }
  return [...names].sort(byImportance);
}

export const steps = (records) => records.map(({ step }) => step);

/** @returns {(number|null)[]} of that metric, one a record */
export function column(records, name) {
  if (name.startsWith(SECONDS)) return records.map(({ seconds }) => seconds?.[name.slice(SECONDS.length)] ?? null);
  return records.map(({ metrics }) => metrics[name] ?? null);
}

/** The newest value that is a number, and its step. */
export function newest(records, name) {
  for (let index = records.length - 1; index >= 0; index -= 1) {
    const value = column([records[index]], name)[0];
    if (value !== null) return { value, step: records[index].step };
  }
  return { value: null, step: null };
}

/**
 * Exponential moving average that does not lean on its first value (as Adam corrects its moments): the mean of the values
 * so far, each weighed by `weight` to the power of how many came after it. 0 changes nothing; missing values stay missing.
 */
export function smooth(values, weight) {
  if (!weight) return values;
  let [sum, norm] = [0, 0];
  return values.map((value) => {
    if (value === null) return null;
    [sum, norm] = [weight * sum + value, weight * norm + 1];
    return sum / norm;
  });
}

/** Half the 95 % interval of a step's mean reward, of the spread of its responses; null where it is not known. */
export function rewardInterval({ metrics }) {
  const { reward_std: spread, num_answers: count } = metrics;
  return spread > 0 && count > 1 ? (STANDARD_ERRORS * spread) / Math.sqrt(count) : null;
}

/** Several columns over steps of their own as columns over all steps: {x, columns}. */
export function aligned(sources) {
  const x = [...new Set(sources.flatMap((source) => source.x))].sort((left, right) => left - right);
  const place = new Map(x.map((step, index) => [step, index]));
  const columns = sources.map((source) => {
    const values = Array(x.length).fill(null);
    source.x.forEach((step, index) => { values[place.get(step)] = source.values[index]; });
    return values;
  });
  return { x, columns };
}

/** A test of names by a regular expression, or by the letters as they are where they are none; "" fits all. */
export function nameFilter(pattern) {
  try {
    const expression = new RegExp(pattern, "i");
    return { fits: (name) => expression.test(name), isValid: true };
  } catch {
    return { fits: (name) => name.toLowerCase().includes(pattern.toLowerCase()), isValid: false };
  }
}

// The overlays of an answer's tokens: what each shows, in which unit, and around which middle its colours lie.

/** `values`: of the row route's `tokens`, one for each token; `centre`: the value without a colour. */
export const OVERLAYS = [
  { key: "plain", name: "Plain", unit: "", meaning: "The text alone.", values: () => null },
  {
    key: "logprob",
    name: "Log-prob",
    unit: "nats",
    centre: 0,
    meaning: "Log-probability of the token under the policy that sampled it. The lower, the more surprising.",
    values: (tokens) => tokens.logprob,
  },
  {
    key: "entropy",
    name: "Entropy",
    unit: "nats",
    centre: 0,
    meaning: "Entropy of the learner's own distribution over the next token at this place, whatever version wrote the token.",
    values: (tokens) => tokens.entropy,
  },
  {
    key: "advantage",
    name: "Advantage",
    unit: "",
    centre: 0,
    meaning: "By the estimator: a policy gradient makes tokens above 0 likelier. Of online DPO 1 marks the best answer, -1 the worst.",
    values: (tokens) => tokens.advantage,
  },
  {
    key: "value",
    name: "Value",
    unit: "reward",
    centre: 0,
    meaning: "What the critic expected to be earned from before this token on.",
    values: (tokens) => tokens.value,
  },
  {
    key: "td_error",
    name: "TD error",
    unit: "reward",
    centre: 0,
    meaning: "Reward of the token, plus the value after it, less the value before it: what the critic had not expected.",
    values: (tokens) => tokens.td_error,
  },
  {
    key: "kl",
    name: "KL to reference",
    unit: "nats",
    centre: 0,
    meaning: "How much more likely the token is to the policy than to the reference, as a log-ratio's estimate.",
    values: (tokens) => tokens.kl,
  },
  {
    key: "sampler_gap",
    name: "Sampler gap",
    unit: "nats",
    centre: 0,
    meaning: "How far apart sampler and learner are on the token's log-probability. Of an older version the weights differ too.",
    values: (tokens) => tokens.sampler_gap,
  },
  {
    key: "ratio",
    name: "Ratio",
    unit: "",
    centre: 1,
    meaning: "Importance ratio: the token's probability in the update over that of the learner before it. Underlined twice: clipped.",
    values: (tokens) => tokens.ratio,
  },
  {
    key: "mask",
    name: "Mask",
    unit: "",
    meaning: "Hatched: not written by the policy, so nothing is learnt from it.",
    values: (tokens) => tokens.mask,
  },
  {
    key: "version",
    name: "Version",
    unit: "",
    meaning: "The policy version that wrote the token. A bar stands where it changes.",
    values: (tokens) => tokens.version,
  },
];

/** The overlays that have something to show of these tokens; the plain text always is one. */
export function overlaysOf(tokens) {
  return OVERLAYS.filter((overlay) => overlay.key === "plain" || overlay.values(tokens)?.some((value) => value !== null));
}

/** The overlay named `key`, or the first that there is of log-prob and plain. */
export function chosenOverlay(key, tokens) {
  const there = overlaysOf(tokens);
  return there.find((overlay) => overlay.key === key) ?? there.find((overlay) => overlay.key === "logprob") ?? there[0];
}

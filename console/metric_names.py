"""What people call the metrics of a step, and in which units they are."""

from collections.abc import Mapping
from dataclasses import dataclass

HELDOUT = "heldout_"
"""Before the name of a metric that is of held-out records."""


@dataclass(frozen=True)
class MetricName:
    """Attributes:
    title: in words.
    unit: what it is counted in and a mean of; empty for a plain number.
    is_share: whether it is a share of 1, which people read in percent.
    """

    title: str
    unit: str = ""
    is_share: bool = False


def _share(title: str, unit: str) -> MetricName:
    return MetricName(title, unit, is_share=True)


KNOWN: Mapping[str, MetricName] = {
    # Of most stages
    "loss": MetricName("loss"),
    "accuracy": _share("accuracy", "%"),
    "margin": MetricName("reward margin", "better less worse response"),
    "replay_loss": MetricName("loss of replayed text", "nats per token"),
    "learning_rate": MetricName("learning rate"),
    "tokens_per_s": MetricName("speed", "tokens per second"),
    "grad_norm": MetricName("gradient norm", "before clipping"),
    # Offline
    "chosen_reward": MetricName("reward of the chosen", "per response"),
    "rejected_reward": MetricName("reward of the rejected", "per response"),
    "nll": MetricName("loss of the chosen", "nats per token"),
    "absolute_error": MetricName("absolute error", "per response"),
    "calibration_error": MetricName("calibration error"),
    "explained_variance": MetricName("explained variance", "1 is perfect"),
    # Online
    "reward": MetricName("reward", "per response"),
    "reward_std": MetricName("spread of the reward", "standard deviation"),
    "gold_reward": MetricName("gold reward", "per response"),
    "return_mean": MetricName("return", "shaped reward per response"),
    "kl": MetricName("KL from the reference", "nats per response"),
    "teacher_kl": MetricName("KL from the teachers", "nats per token"),
    "kl_loss": MetricName("KL in the loss", "nats per token"),
    "kl_coefficient": MetricName("KL coefficient"),
    "update_kl": MetricName("KL of the update", "nats per token"),
    "entropy": MetricName("entropy", "nats per token"),
    "answer_tokens_mean": MetricName("response length", "tokens"),
    "missing_eos_share": _share("cut at the length limit", "% of responses"),
    "repeated_share": _share("repeated responses", "% of responses"),
    "num_answers": MetricName("responses", "per step"),
    "num_empty": MetricName("empty responses", "per step"),
    "num_tokens": MetricName("tokens learnt from", "per step"),
    "policy_loss": MetricName("policy loss"),
    "clipped_share": _share("clipped ratios", "% of tokens"),
    "value_loss": MetricName("value loss"),
    "value_clipped_share": _share("clipped values", "% of tokens"),
    "sampler_gap_mean": MetricName("sampler gap, mean", "nats per token"),
    "sampler_gap_max": MetricName("sampler gap, largest", "nats per token"),
    "sampler_gap_fresh": MetricName("sampler gap, newest version", "nats per token"),
    "sampler_gap_rms": MetricName("sampler gap, root mean square in the update", "nats per token"),
    "sampler_idle_s": MetricName("samplers idle", "seconds per step"),
    "importance_cut_share": _share("importance ratios cut", "% of tokens"),
    "staleness_mean": MetricName("staleness, mean", "policy versions behind"),
    "staleness_max": MetricName("staleness, largest", "policy versions behind"),
    "episode_turns": MetricName("turns of the policy", "per episode"),
    "environment_failures": MetricName("failures of the environment", "episodes per step"),
    "num_rounds": MetricName("rounds of sampling", "per step"),
    "num_dropped_groups": MetricName("groups left out", "per step"),
    "num_flat_groups": MetricName("groups without spread", "per step"),
}

OF_STAGES: Mapping[tuple[str, str], MetricName] = {
    ("pretrain", "loss"): MetricName("loss", "nats per token"),
    ("pretrain-encoder", "loss"): MetricName("loss", "nats per hidden token"),
    ("pretrain-encoder", "accuracy"): _share("accuracy", "% of hidden tokens"),
    ("sft", "loss"): MetricName("loss", "nats per token"),
    ("reward", "loss"): MetricName("loss", "per record"),
    ("reward", "accuracy"): _share("accuracy", "% of pairs"),
    ("dpo", "loss"): MetricName("loss", "per pair"),
    ("dpo", "accuracy"): _share("accuracy", "% of pairs"),
    ("online-dpo", "policy_loss"): MetricName("policy loss", "per pair"),
    ("online-dpo", "accuracy"): _share("accuracy", "% of pairs"),
    ("kto", "loss"): MetricName("loss", "per response"),
    ("kto", "accuracy"): _share("accuracy", "% of responses"),
}
"""(stage, metric): where what it is a mean of depends on the stage."""


def metric_name(stage: str, metric: str) -> MetricName:
    """What the metric is called in that stage; one that nobody has named, by its own words."""
    if (stage, metric) in OF_STAGES:
        return OF_STAGES[stage, metric]
    if metric in KNOWN:
        return KNOWN[metric]
    if metric.endswith("_grad_norm"):
        return MetricName(f"gradient norm, {metric.removesuffix('_grad_norm')}", "before clipping")
    return MetricName(metric.replace("_", " "))

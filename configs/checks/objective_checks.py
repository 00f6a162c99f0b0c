"""What is optimised online, against its batches, its reward and its teachers."""

from collections.abc import Sequence
from typing import Any

from plumbob.configs.checks.input_checks import check_environment
from plumbob.configs.checks.learner_checks import check_critic, check_divides
from plumbob.configs.checks.serving_checks import check_published
from plumbob.configs.settings.algorithms import (
    GROUPED,
    RANKED,
    Clipped,
    Distillation,
    Gspo,
    NoImportance,
    OnlineDpo,
    TruncatedImportance,
)
from plumbob.configs.settings.models import TeacherSettings
from plumbob.configs.settings.offline_objectives import reads_prompt
from plumbob.configs.settings.rewards import RewardGroupSettings, no_reward
from plumbob.configs.settings.training import PpoSettings
from plumbob.configs.settings.tuning.any_tuning import AnyTuning
from plumbob.configs.settings.workers import LearnerSettings, RolloutSettings
from plumbob.core.errors import UserError


def check_online(
    ppo: PpoSettings,
    learner: LearnerSettings,
    rollout: RolloutSettings,
    tuning: AnyTuning,
    reward: RewardGroupSettings | None,
) -> None:
    """What is optimised online, against all that it is computed with: of a run of PPO, and of a pipeline."""
    check_ppo(ppo, learner, rollout)
    check_parts(ppo, reward)
    check_environment(rollout, reward)
    check_critic(tuning, estimator=ppo.estimator)
    check_published(tuning, rollout)


def check_ppo(ppo: PpoSettings, learner: LearnerSettings, rollout: RolloutSettings) -> None:
    check_divides("ppo.minibatch_size", ppo.minibatch_size, learner)
    if ppo.samples_per_step % ppo.minibatch_size:
        raise ValueError(
            f"ppo.prompts_per_step x ppo.samples_per_prompt = {ppo.samples_per_step} samples cannot be cut into "
            f"minibatches of ppo.minibatch_size={ppo.minibatch_size}: make it a divisor of {ppo.samples_per_step}"
        )
    if ppo.samples_per_prompt < 2 and isinstance(ppo.estimator, GROUPED):
        raise ValueError(
            f"ppo.estimator.kind={ppo.estimator.kind} compares the responses to one prompt, but "
            f"ppo.samples_per_prompt={ppo.samples_per_prompt}: set it to at least 2, better 4 to 16"
        )
    if ppo.dynamic_sampling is not None and ppo.samples_per_prompt < 2:
        raise ValueError(
            f"ppo.dynamic_sampling looks for prompts whose responses differ in reward, but "
            f"ppo.samples_per_prompt={ppo.samples_per_prompt}: set it to at least 2"
        )
    if isinstance(ppo.policy_loss, Gspo) and ppo.loss_mean == "token":
        raise ValueError(
            "ppo.policy_loss.kind=gspo with ppo.loss_mean=token: it is a mean over responses, whose ratio would be "
            "counted once for each token; set ppo.loss_mean=response"
        )
    overlong = ppo.shaping.overlong_penalty
    if overlong is not None and overlong.cache_tokens > rollout.max_tokens:
        raise ValueError(
            f"ppo.shaping.overlong_penalty.cache_tokens={overlong.cache_tokens} is more than "
            f"rollout.max_tokens={rollout.max_tokens}: set it to a part of that, such as a fifth"
        )
    if ppo.max_staleness and isinstance(ppo.importance, NoImportance):
        raise ValueError(
            f"ppo.max_staleness={ppo.max_staleness} trains on tokens of older policies, but ppo.importance.kind=none "
            "counts them as the learner's own: set ppo.importance.kind=truncated or masked, or ppo.max_staleness=0"
        )
    if isinstance(ppo.estimator, RANKED):
        check_ranked(ppo, learner)
    if isinstance(ppo.estimator, OnlineDpo):
        check_online_pairs(ppo, ppo.estimator)


def check_ranked(ppo: PpoSettings, learner: LearnerSettings) -> None:
    """Of an estimator that learns one row of each group."""
    chosen, size = f"ppo.estimator.kind={ppo.estimator.kind}", ppo.samples_per_prompt
    if ppo.minibatch_size % size:
        raise ValueError(
            f"{chosen} learns from whole groups of ppo.samples_per_prompt={size} responses, into which "
            f"ppo.minibatch_size={ppo.minibatch_size} cannot be cut: make it a multiple of {size}"
        )
    if ppo.rows_per_update % learner.num_workers:
        raise ValueError(
            f"ppo.minibatch_size={ppo.minibatch_size} is {ppo.rows_per_update} groups of "
            f"ppo.samples_per_prompt={size}, which cannot be shared equally by "
            f"learner.num_workers={learner.num_workers}: make it a multiple of {size * learner.num_workers}"
        )
    if ppo.kl.place == "loss":
        raise ValueError(
            f"{chosen} with ppo.kl.place=loss: it learns from responses that their reward has chosen, which do not say "
            "how far the policy is from its reference; set ppo.kl.place=reward with ppo.kl.estimate=k1, which ranks "
            "them by their reward less the KL"
        )


def check_online_pairs(ppo: PpoSettings, estimator: OnlineDpo) -> None:
    """Of a loss of pairs, which has no surrogate."""
    changed = {
        "ppo.policy_loss": ppo.policy_loss != Clipped(),
        "ppo.loss_mean": ppo.loss_mean != "token",
        "ppo.importance": ppo.importance != TruncatedImportance(),
    }
    if any(changed.values()):
        keys = ", ".join(key for key, is_changed in changed.items() if is_changed)
        raise ValueError(
            f"{keys}: not read by ppo.estimator.kind=online-dpo, whose loss of pairs is ppo.estimator.loss; leave the "
            "default"
        )
    if reads_prompt(estimator.loss):
        raise ValueError(
            "ppo.estimator.loss.likelihood=sequence is also a likelihood of the prompts, which an online run does not "
            "learn: set ppo.estimator.loss.likelihood=response"
        )


def with_no_clip_by_default(given: Any) -> Any:
    """A run's settings as they were given, with `ppo.shaping.clip` null where there are parts and nobody set it."""
    reward, ppo = (given.get(name) or {} for name in ("reward", "ppo")) if isinstance(given, dict) else ({}, {})
    shaping = (ppo.get("shaping") or {}) if isinstance(ppo, dict) else None
    if not (isinstance(reward, dict) and reward.get("parts") and isinstance(shaping, dict)) or "clip" in shaping:
        return given
    return given | {"ppo": ppo | {"shaping": shaping | {"clip": None}}}


def check_parts(ppo: PpoSettings, reward: RewardGroupSettings | None) -> None:
    parts = () if reward is None else reward.parts
    if ppo.combine_parts == "standardised" and (not parts or ppo.samples_per_prompt < 2):
        raise ValueError(
            f"ppo.combine_parts=standardised compares each part's values for the responses to one prompt, but there "
            f"are {len(parts)} reward.parts and ppo.samples_per_prompt={ppo.samples_per_prompt}: give parts, "
            f"and at least 2 samples a prompt"
        )


def check_rewarded(ppo: PpoSettings, reward: RewardGroupSettings | None) -> None:
    if reward is None and not isinstance(ppo.estimator, Distillation):
        raise ValueError(no_reward("reward"))


def check_no_teachers(ppo: PpoSettings) -> None:
    """Of a pipeline."""
    if isinstance(ppo.estimator, Distillation):
        raise ValueError(
            "ppo.estimator.kind=distillation learns from teachers, which a pipeline does not hand on to its stages: "
            "distil in a run of kind ppo"
        )


def check_teachers(ppo: PpoSettings, teachers: Sequence[TeacherSettings], column: str | None) -> None:
    """Distillation has teachers and nothing that only a reward would make sense of; other objectives have none."""
    kind = "ppo.estimator.kind=distillation"
    if not isinstance(ppo.estimator, Distillation):
        if teachers or column is not None:
            raise ValueError(
                f"teachers grade for {kind} alone, and ppo.estimator.kind={ppo.estimator.kind} learns from a reward: "
                f"set {kind}, or leave teachers and teachers_by out"
            )
        return
    if not teachers:
        raise ValueError(f"{kind} learns from a teacher: give teachers='[{{model: FOLDER}}]'")
    names = [teacher.name for teacher in teachers]
    if len(set(names)) < len(names):
        raise ValueError(f"teachers: two are called {max(names, key=names.count)!r}: give each a `name` of its own")
    if (column is None) != (len(teachers) == 1):
        found = f"there is {'one' if len(teachers) == 1 else len(teachers)}, and teachers_by is {column or 'not set'}"
        raise ValueError(
            f"teachers_by is the column of the prompts' rows that has the name of each prompt's teacher, where there "
            f"are several; {found}: set it for several, and leave it out for one"
        )
    if ppo.kl.coefficient:
        raise ValueError(
            f"ppo.kl.coefficient={ppo.kl.coefficient:g} would hold the policy to what it began as, and {kind} is to "
            f"lead it to the teacher: set ppo.kl.kind=fixed and ppo.kl.coefficient=0"
        )
    if ppo.dynamic_sampling is not None:
        raise ValueError(f"ppo.dynamic_sampling looks at rewards, which {kind} does not learn from: set it to null")
    if isinstance(ppo.policy_loss, Gspo):
        raise ValueError(
            f"ppo.policy_loss.kind=gspo has one ratio for a whole response, and {kind} grades each token: set "
            f"ppo.policy_loss.kind=clipped"
        )


def check_gold_reward(ppo: PpoSettings, has_gold_reward: bool) -> None:
    if ppo.monitors.over_optimisation.action == "stop" and not has_gold_reward:
        raise UserError(
            "ppo.monitors.over_optimisation.action=stop, but there is no gold reward: give a run of ppo a "
            "gold_reward.model, a reward model that nothing learns from, or set the action to warn"
        )

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
from plumbob.configs.settings.training import OnlineSettings
from plumbob.configs.settings.tuning.any_tuning import AnyTuning
from plumbob.configs.settings.workers import LearnerSettings, RolloutSettings
from plumbob.core.errors import UserError


def check_online(
    online: OnlineSettings,
    learner: LearnerSettings,
    rollout: RolloutSettings,
    tuning: AnyTuning,
    reward: RewardGroupSettings | None,
) -> None:
    """What is optimised online, against all that it is computed with: of an online run, and of a pipeline."""
    check_steps_and_batches(online, learner, rollout)
    check_parts(online, reward)
    check_environment(rollout, reward)
    check_critic(tuning, estimator=online.estimator)
    check_published(tuning, rollout)


def check_steps_and_batches(online: OnlineSettings, learner: LearnerSettings, rollout: RolloutSettings) -> None:
    check_divides("online.minibatch_size", online.minibatch_size, learner)
    if online.samples_per_step % online.minibatch_size:
        raise ValueError(
            f"online.prompts_per_step x online.samples_per_prompt = {online.samples_per_step} samples cannot be cut "
            f"into minibatches of online.minibatch_size={online.minibatch_size}: make it a divisor of "
            f"{online.samples_per_step}"
        )
    if online.samples_per_prompt < 2 and isinstance(online.estimator, GROUPED):
        raise ValueError(
            f"online.estimator.kind={online.estimator.kind} compares the responses to one prompt, but "
            f"online.samples_per_prompt={online.samples_per_prompt}: set it to at least 2, better 4 to 16"
        )
    if online.dynamic_sampling is not None and online.samples_per_prompt < 2:
        raise ValueError(
            f"online.dynamic_sampling looks for prompts whose responses differ in reward, but "
            f"online.samples_per_prompt={online.samples_per_prompt}: set it to at least 2"
        )
    if isinstance(online.policy_loss, Gspo) and online.loss_mean == "token":
        raise ValueError(
            "online.policy_loss.kind=gspo with online.loss_mean=token: it is a mean over responses, whose ratio would "
            "be counted once for each token; set online.loss_mean=response"
        )
    overlong = online.shaping.overlong_penalty
    if overlong is not None and overlong.cache_tokens > rollout.max_tokens:
        raise ValueError(
            f"online.shaping.overlong_penalty.cache_tokens={overlong.cache_tokens} is more than "
            f"rollout.max_tokens={rollout.max_tokens}: set it to a part of that, such as a fifth"
        )
    if online.max_staleness and isinstance(online.importance, NoImportance):
        raise ValueError(
            f"online.max_staleness={online.max_staleness} trains on tokens of older policies, but "
            "online.importance.kind=none counts them as the learner's own: set "
            "online.importance.kind=truncated or masked, or online.max_staleness=0"
        )
    if isinstance(online.estimator, RANKED):
        check_ranked(online, learner)
    if isinstance(online.estimator, OnlineDpo):
        check_online_pairs(online, online.estimator)


def check_ranked(online: OnlineSettings, learner: LearnerSettings) -> None:
    """Of an estimator that learns one row of each group."""
    chosen, size = f"online.estimator.kind={online.estimator.kind}", online.samples_per_prompt
    if online.minibatch_size % size:
        raise ValueError(
            f"{chosen} learns from whole groups of online.samples_per_prompt={size} responses, into which "
            f"online.minibatch_size={online.minibatch_size} cannot be cut: make it a multiple of {size}"
        )
    if online.rows_per_update % learner.num_workers:
        raise ValueError(
            f"online.minibatch_size={online.minibatch_size} is {online.rows_per_update} groups of "
            f"online.samples_per_prompt={size}, which cannot be shared equally by "
            f"learner.num_workers={learner.num_workers}: make it a multiple of {size * learner.num_workers}"
        )
    if online.kl.place == "loss":
        raise ValueError(
            f"{chosen} with online.kl.place=loss: it learns from responses that their reward has chosen, which do not "
            "say how far the policy is from its reference; set online.kl.place=reward with online.kl.estimate=k1, "
            "which ranks them by their reward less the KL"
        )


def check_online_pairs(online: OnlineSettings, estimator: OnlineDpo) -> None:
    """Of a loss of pairs, which has no surrogate."""
    changed = {
        "online.policy_loss": online.policy_loss != Clipped(),
        "online.loss_mean": online.loss_mean != "token",
        "online.importance": online.importance != TruncatedImportance(),
    }
    if any(changed.values()):
        keys = ", ".join(key for key, is_changed in changed.items() if is_changed)
        raise ValueError(
            f"{keys}: not read by online.estimator.kind=online-dpo, whose loss of pairs is online.estimator.loss; "
            "leave the default"
        )
    if reads_prompt(estimator.loss):
        raise ValueError(
            "online.estimator.loss.likelihood=sequence is also a likelihood of the prompts, which an online run does "
            "not learn: set online.estimator.loss.likelihood=response"
        )


def with_no_clip_by_default(given: Any) -> Any:
    """A run's settings as they were given, with `online.shaping.clip` null where there are parts and nobody set it."""
    reward, online = (given.get(name) or {} for name in ("reward", "online")) if isinstance(given, dict) else ({}, {})
    shaping = (online.get("shaping") or {}) if isinstance(online, dict) else None
    if not (isinstance(reward, dict) and reward.get("parts") and isinstance(shaping, dict)) or "clip" in shaping:
        return given
    return given | {"online": online | {"shaping": shaping | {"clip": None}}}


def check_parts(online: OnlineSettings, reward: RewardGroupSettings | None) -> None:
    parts = () if reward is None else reward.parts
    if online.combine_parts == "standardised" and (not parts or online.samples_per_prompt < 2):
        raise ValueError(
            f"online.combine_parts=standardised compares each part's values for the responses to one prompt, but there "
            f"are {len(parts)} reward.parts and online.samples_per_prompt={online.samples_per_prompt}: give parts, "
            f"and at least 2 samples a prompt"
        )


def check_rewarded(online: OnlineSettings, reward: RewardGroupSettings | None) -> None:
    if reward is None and not isinstance(online.estimator, Distillation):
        raise ValueError(no_reward("reward"))


def check_no_teachers(online: OnlineSettings) -> None:
    """Of a pipeline."""
    if isinstance(online.estimator, Distillation):
        raise ValueError(
            "online.estimator.kind=distillation learns from teachers, which a pipeline does not hand on to its stages: "
            "distil in a run of kind online"
        )


def check_teachers(online: OnlineSettings, teachers: Sequence[TeacherSettings], column: str | None) -> None:
    """Distillation has teachers and nothing that only a reward would make sense of; other objectives have none."""
    kind = "online.estimator.kind=distillation"
    if not isinstance(online.estimator, Distillation):
        if teachers or column is not None:
            raise ValueError(
                f"teachers grade for {kind} alone, and online.estimator.kind={online.estimator.kind} learns from a "
                f"reward: set {kind}, or leave teachers and teachers_by out"
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
    if online.kl.coefficient:
        raise ValueError(
            f"online.kl.coefficient={online.kl.coefficient:g} would hold the policy to what it began as, and {kind} is "
            f"to lead it to the teacher: set online.kl.kind=fixed and online.kl.coefficient=0"
        )
    if online.dynamic_sampling is not None:
        raise ValueError(f"online.dynamic_sampling looks at rewards, which {kind} does not learn from: set it to null")
    if isinstance(online.policy_loss, Gspo):
        raise ValueError(
            f"online.policy_loss.kind=gspo has one ratio for a whole response, and {kind} grades each token: set "
            f"online.policy_loss.kind=clipped"
        )


def check_gold_reward(online: OnlineSettings, has_gold_reward: bool) -> None:
    if online.monitors.over_optimisation.action == "stop" and not has_gold_reward:
        raise UserError(
            "online.monitors.over_optimisation.action=stop, but there is no gold reward: give an online run a "
            "gold_reward.model, a reward model that nothing learns from, or set the action to warn"
        )

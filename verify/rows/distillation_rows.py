"""Rows of on-policy distillation: a policy ends at its teacher; with several, for each prompt at that prompt's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import Distillation, FixedKl
from plumbob.configs.settings.models import TeacherSettings
from plumbob.configs.settings.training import OnlineSettings
from plumbob.verify.optima.distillation_optima import likeliest_alone
from plumbob.verify.optima.planted_bugs import TOO_LARGE, powered
from plumbob.verify.optima.response_tree import Array, Instance, gap_ratio, total_variation
from plumbob.verify.rows.bug_shift import Moved, moved
from plumbob.verify.training.train_online import train_online
from plumbob.verify.world.problem import (
    DISTANCE,
    GAP,
    MAX_GRAD_NORM,
    SPREAD,
    UNSHAPED,
    Measurement,
    Problem,
    Size,
    make_problem,
)
from plumbob.verify.world.tiny_world import response_logprobs, write_model

ROUTE = "teacher"
"""Column of the prompts' rows that names their teachers."""
FAR = 0.2
"""Total variation from its teacher at least, for some prompt, that the policy begins with."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """A problem with teachers, written to disk: models like the policy, with other weights.

    Attributes:
        folders: of the teachers.
        by_teacher: log-probs of whole responses by each teacher, [N, P, K].
    """

    problem: Problem
    folders: tuple[Path, ...]
    by_teacher: Array

    @property
    def instance(self) -> Instance:
        return self.problem.instance()

    @property
    def routes(self) -> tuple[int, ...]:
        """The number of each prompt's teacher."""
        return tuple(prompt % len(self.folders) for prompt in range(self.problem.size.num_prompts))

    @property
    def target(self) -> Array:
        """Log-probs [P, K], of each prompt by its own teacher."""
        return self.by_teacher[list(self.routes), range(len(self.routes))]

    @property
    def rows(self) -> dict[str, dict[str, str]]:
        """prompt -> its row."""
        return {str(prompt): {ROUTE: f"teacher {number}"} for prompt, number in enumerate(self.routes)}

    def run(self, online: OnlineSettings) -> OnlineRun:
        teachers = tuple(
            TeacherSettings(model=str(folder), name=f"teacher {number}") for number, folder in enumerate(self.folders)
        )
        return self.problem.online_run(online, teachers, ROUTE if len(teachers) > 1 else None)


def make_lesson(size: Size, num_teachers: int, seed: int, folder: Path) -> Lesson:
    """Write the models of one instance below `folder`."""
    problem = make_problem(size, seed, folder)
    folders = tuple(
        write_model(folder / f"teacher-{seed}-{number}", problem.world, 1000 * (number + 1) + seed, SPREAD)
        for number in range(num_teachers)
    )
    by_teacher = [replace(problem, model=teacher).instance().reference for teacher in folders]
    return Lesson(problem, folders, np.stack(by_teacher))


LessonTarget = Callable[[Lesson], Array]
"""A lesson -> log-probs [P, K]."""


@dataclass(frozen=True)
class DistillationRow:
    """Responses sampled from the policy, graded by its teacher, one update after another.

    Attributes:
        own_bugs: targets of bugs that not every form can have.
    """

    name: str
    setting: str
    estimator: Distillation
    num_teachers: int = 1
    size: Size = field(default_factory=Size)
    num_samples: int = 150
    num_steps: int = 100
    learning_rate: float = 6e-3
    own_bugs: Mapping[str, LessonTarget | None] = field(default_factory=dict)

    @property
    def bug_targets(self) -> Mapping[str, LessonTarget | None]:
        """The targets of trainers that have a planted bug, by its name."""
        return {
            "the teacher's logits 10% too large": sharper,
            "the teacher a token late": None,
            "EOS out of the mask": None,
            **self.own_bugs,
        }

    def bug_shifts(self, seed: int, folder: Path) -> Moved:
        lesson = make_lesson(self.size, self.num_teachers, seed, folder)
        return moved(lambda target: target(lesson), taught, self.bug_targets)

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        lesson = make_lesson(self.size, self.num_teachers, seed, folder)
        problem, begun = lesson.problem, lesson.instance.reference
        learners = train_online(lesson.run(self.settings()), problem.world, problem.rewards, lesson.rows)
        policy = response_logprobs(problem.world, learners.compute, "policy")
        return (
            Measurement("TV", float(total_variation(policy, lesson.target).max()), DISTANCE),
            Measurement("gap", gap_ratio(policy, lesson.target, begun), GAP),
            Measurement("-TV of the policy as it begins", -float(total_variation(begun, lesson.target).max()), -FAR),
        )

    def settings(self) -> OnlineSettings:
        return OnlineSettings(
            learning_rate=self.learning_rate,
            schedule="linear",
            num_steps=self.num_steps,
            prompts_per_step=self.num_samples,
            minibatch_size=self.num_samples,
            max_grad_norm=MAX_GRAD_NORM,
            estimator=self.estimator,
            kl=FixedKl(coefficient=0.0),
            shaping=UNSHAPED,
        )


def taught(lesson: Lesson) -> Array:
    return lesson.target


def sharper(lesson: Lesson) -> Array:
    """As where the policy is sampled at a temperature of 1.1 and the teacher's is forgotten."""
    return powered(lesson.problem.world.tree, lesson.target, TOO_LARGE)


def unmoved(lesson: Lesson) -> Array:
    return lesson.instance.reference


def of_two_tokens(lesson: Lesson) -> Array:
    tree = lesson.problem.world.tree
    return tree.response_logprobs(likeliest_alone(tree.next_token_logprobs(lesson.target), 2))


def exchanged(lesson: Lesson) -> Array:
    routes = [1 - number for number in lesson.routes]
    return lesson.by_teacher[routes, range(len(routes))]


OF_WHOLE_KL: Mapping[str, LessonTarget | None] = {
    "the forward KL": taught,
    "the forward KL over the teacher's two likeliest tokens, not renormalised": of_two_tokens,
}
OF_SAMPLED_TOKENS: Mapping[str, LessonTarget | None] = {
    "the KL over the vocabulary as the advantage": unmoved,
    "the KL over the teacher's two likeliest tokens as the advantage": unmoved,
    "the log-ratio the other way around": None,
}
FULL_ROW = DistillationRow("distillation", "full KL, 40 responses", Distillation(), own_bugs=OF_WHOLE_KL)
SAMPLED_ROW = DistillationRow(
    "distillation",
    "sampled tokens, 40 responses",
    Distillation(form="sampled"),
    own_bugs=OF_SAMPLED_TOKENS,
)
RETURN_ROW = DistillationRow(
    "distillation",
    "sampled tokens and what follows (gamma 1), 40 responses",
    Distillation(form="sampled", gamma=1.0),
    own_bugs={
        "the KL over the vocabulary as the advantage": None,
        "the KL over the teacher's two likeliest tokens as the advantage": None,
        "the log-ratio the other way around": None,
    },
)
ROUTED_ROW = DistillationRow(
    "distillation",
    "full KL, two teachers by the prompt's row, 40 responses",
    Distillation(),
    num_teachers=2,
    own_bugs={**OF_WHOLE_KL, "teachers exchanged": exchanged},
)
DISTILLATION_ROWS = (FULL_ROW, SAMPLED_ROW, RETURN_ROW, ROUTED_ROW)

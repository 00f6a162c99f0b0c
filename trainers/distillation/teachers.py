"""Teachers of a run: opened and checked before it starts, found for each response, and how far the policy is from them.

```
 prompts' rows --column `teachers_by`--> number of each response's teacher [B]
                                                 |
 responses --learner, role `teacher`--> log-probs of their tokens [B, T] --> metrics, journal, advantages (`sampled`)
           --learner, the policy's update-----> KL of whole distributions [B, T] (`full`)
```
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import Distillation
from plumbob.core.errors import UserError
from plumbob.data.length_checks import check_context
from plumbob.data.prompts import EncodedPrompt
from plumbob.models.loading import OpenedPolicy, open_policy
from plumbob.models.tuning.adapter_support import check_beside_few_bits, check_learner
from plumbob.rollout.rollout_heads import Response
from plumbob.trainers.algorithms.whole_batch import ONE_RANK, WholeBatch, masked_mean

if TYPE_CHECKING:
    from plumbob.models.policy import PolicyModel

TEACHER_KL = "teacher_kl"
"""Of a step: mean over its tokens of log policy - log teacher in nats, which estimates KL(policy || teacher)."""


def prepare_teachers(run: OnlineRun, policy: OpenedPolicy, prompts: Sequence[EncodedPrompt]) -> tuple[str, ...]:
    """Check the teachers of a run; what a person should know of them comes back. Loads none.

    Raises:
        UserError: one cannot be opened, or cannot grade what the policy writes; or a prompt has none.
    """
    teachers = [open_policy(ref) for ref in run.teacher_refs]
    longest = max(len(prompt.ids) for prompt in prompts)
    for teacher in teachers:
        _check_same_tokens(policy, teacher)
        check_beside_few_bits(teacher)
        check_learner(teacher.ref, teacher.source.adapter, None, run.learner)
        try:
            check_context(longest, run.rollout.max_tokens, teacher.num_positions)
        except UserError as error:
            raise UserError(f"{teacher.ref}: {error}") from error
    _check_names(run, prompts)
    own = policy.tokenizer
    return tuple(
        f"{teacher.ref}: ends a text with {teacher.tokenizer.eos_token!r}, and the policy with {own.eos_token!r}: "
        f"what it says of the policy's end is what it was trained to say of that token"
        for teacher in teachers
        if teacher.tokenizer.eos_token_id != own.eos_token_id
    )


def load_teachers(run: OnlineRun, policy: "PolicyModel") -> None:
    """Put the teachers of a run beside its policy. Raises UserError when one cannot be loaded."""
    if run.teachers:
        from plumbob.models.tuning.roles import add_teachers

        add_teachers(policy, [open_policy(ref) for ref in run.teacher_refs])


def _check_names(run: OnlineRun, prompts: Sequence[EncodedPrompt]) -> None:
    """Raises UserError unless each prompt's row names a teacher, where there are several."""
    if run.teachers_by is None:
        return
    names = [teacher.name for teacher in run.teachers]
    without = [prompt for prompt in prompts if _name_in(prompt.row, run.teachers_by) not in names]
    if without:
        raise UserError(
            f"{', '.join(run.data.weights)}: {len(without):,} of {len(prompts):,} prompts have no teacher: teachers_by="
            f"{run.teachers_by} is {_name_in(without[0].row, run.teachers_by)!r} of {without[0].text[:80]!r}, and the "
            f"teachers are called {', '.join(names)}; fix these rows, or give a teacher of that name"
        )


def teacher_numbers(
    run: OnlineRun, rollouts: Sequence[Response], rows: Mapping[str, Mapping[str, Any]]
) -> Tensor | None:
    """The number of each response's teacher, int64 [B]; None where the policy does not learn from any.

    Args:
        rows: prompt -> its row.
    """
    if not isinstance(run.online.estimator, Distillation):
        return None
    if run.teachers_by is None:
        return torch.zeros(len(rollouts), dtype=torch.int64)
    numbers = {teacher.name: number for number, teacher in enumerate(run.teachers)}
    return torch.tensor([numbers[_name_in(rows[one.request.prompt_id], run.teachers_by)] for one in rollouts])


def teacher_metrics(
    run: OnlineRun, log_ratios: Tensor, mask: Tensor, numbers: Tensor, batch: WholeBatch = ONE_RANK
) -> dict[str, float]:
    """`TEACHER_KL` of a step, and of each teacher that graded in it, where there are several.

    Args:
        log_ratios: log policy - log teacher of each token, [B, T].
        mask: bool [B, T].
        numbers: of each row's teacher, [B].
        batch: that these rows are of.
    """
    found = {TEACHER_KL: masked_mean(log_ratios, mask, batch).item()}
    if len(run.teachers) > 1:
        for number, teacher in enumerate(run.teachers):
            own = mask & (numbers == number)[:, None]
            if batch.gather(own.any(dim=1)).any():
                found[f"{TEACHER_KL}/{teacher.name}"] = masked_mean(log_ratios, own, batch).item()
    return found


def _name_in(row: Mapping[str, Any], column: str) -> str:
    return str(row.get(column))


def _check_same_tokens(policy: OpenedPolicy, teacher: OpenedPolicy) -> None:
    """Raises UserError unless each token of the policy is the same one, by its number, of the teacher."""
    own, its = (opened.tokenizer.get_vocab() for opened in (policy, teacher))
    other = [token for token, number in own.items() if its.get(token) != number]
    what = f"{teacher.ref}: a teacher grades the policy's own tokens, and"
    if other:
        raise UserError(
            f"{what} {len(other):,} of these {len(own):,} are not the same there, such as {other[0]!r}, which has the "
            f"number {own[other[0]]} in the policy and {its.get(other[0], 'none')} in the teacher; give a teacher with "
            f"the policy's tokenizer"
        )
    sizes = [opened.config.get_text_config().vocab_size for opened in (policy, teacher)]
    if sizes[1] < sizes[0]:
        raise UserError(
            f"{what} it has embeddings for {sizes[1]:,} of these {sizes[0]:,}; give a teacher that has them all"
        )

"""AdaLoRA's choice of ranks: how many are left after a step, and how important each is (arXiv 2303.10512).

Of a module s B diag(e) A, rank i is the triplet of row i of A, column i of B and e_i. With the loss L, a number w has

    sensitivity  I(w) = |w dL/dw|        I' = b I' + (1 - b) I        U' = b U' + (1 - b) |I - I'|
    score        S(w) = I' U'

and a triplet S(e_i) + mean of S over the row + mean of S over the column. As PEFT's `RankAllocator`, but that of equal
scores exactly as many are dropped as there are to be.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from plumbob.configs.settings.tuning.adapters import AdaLoraTuning

SMOOTHING = 0.85
"""b, of both averages."""

FACTORS = ".lora_E."
"""In the names of parameters e [r, 1]; A [r, in] and B [out, r] have their own letters there."""


@dataclass(frozen=True)
class RankSchedule:
    """How many triplets of all modules are left, by the optimizer steps that are done.

    All up to `initial_share` of the steps, those of the end in the last `final_share`; between them as many above those
    of the end as the cube of the share of steps that are still to go.
    """

    tuning: AdaLoraTuning
    num_modules: int

    def last_choice(self, num_steps: int) -> int:
        """The step from which on no other ranks are chosen."""
        return num_steps - int(self.tuning.final_share * num_steps)

    def num_left(self, step: int, num_steps: int) -> int | None:
        """After 1-based `step`; None where no ranks are chosen after it."""
        first, last = (rank * self.num_modules for rank in (self.tuning.first_rank, self.tuning.rank))
        begins, ends = int(self.tuning.initial_share * num_steps), self.last_choice(num_steps)
        if step >= ends:
            return last
        if step <= begins or step % self.tuning.every:
            return None
        still = 1 - (step - begins) / (ends - begins)
        return int((first - last) * still**3 + last)


class RankAllocation:
    """The ranks of one adapter, while it is trained.

    Args:
        names: of all of its parameters.
    """

    def __init__(self, tuning: AdaLoraTuning, names: Iterable[str]) -> None:
        self._triplets = {
            name: (name.replace(FACTORS, ".lora_A."), name.replace(FACTORS, ".lora_B."))
            for name in sorted(names)
            if FACTORS in name
        }
        self.schedule = RankSchedule(tuning, len(self._triplets))
        self._sensitivity, self._uncertainty = dict[str, Tensor](), dict[str, Tensor]()
        self._left = dict[str, Tensor]()

    def after_step(
        self, step: int, num_steps: int, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The factors [r, 1] of every module, those of dropped ranks at zero; empty where none are dropped.

        Args:
            step: how many optimizer steps are done, of `num_steps`.
            weights: as this step left them.
            gradients: of the same parameters, of this step.
        """
        num_left = self.schedule.num_left(step, num_steps)
        is_last = step >= self.schedule.last_choice(num_steps)
        if not self._left and (not is_last or not self._sensitivity):
            self._take(weights, gradients)
        if num_left is None:
            return {}
        left = self._left or self._most_important(num_left)
        if is_last and not self._left:
            self._left = left
            self._sensitivity, self._uncertainty = {}, {}
        return {name: weights[name].masked_fill(~left[name][:, None], 0.0) for name in self._triplets}

    def _take(self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        for name, triplet in self._triplets.items():
            for each in (name, *triplet):
                sensitivity = (weights[each] * gradients[each]).abs()
                smooth = _averaged(self._sensitivity.get(each), sensitivity)
                self._sensitivity[each] = smooth
                self._uncertainty[each] = _averaged(self._uncertainty.get(each), (sensitivity - smooth).abs())

    def _most_important(self, num_left: int) -> dict[str, Tensor]:
        """Factors' name -> bool [r], whether a rank is among so many of the highest scores."""
        scores = {name: self._scores(name) for name in self._triplets}
        every = torch.cat(list(scores.values()))
        chosen = torch.zeros_like(every, dtype=torch.bool)
        chosen[every.argsort(descending=True, stable=True)[:num_left]] = True
        parts = chosen.split([len(one) for one in scores.values()])
        return dict(zip(scores, parts, strict=True))

    def _scores(self, name: str) -> Tensor:
        """[r]"""
        a, b = self._triplets[name]
        return self._score(name).flatten() + self._score(a).mean(dim=1) + self._score(b).mean(dim=0)

    def _score(self, name: str) -> Tensor:
        return self._sensitivity[name] * self._uncertainty[name]

    def stored(self, name: str) -> dict[str, Tensor]:
        """What of a parameter a checkpoint keeps, on the CPU."""
        scores = {"sensitivity": self._sensitivity, "uncertainty": self._uncertainty}
        found = {f"{field}.{name}": tensors[name].cpu() for field, tensors in scores.items() if name in tensors}
        if name in self._left:
            found[f"left.{name}"] = self._left[name].to("cpu", torch.uint8)
        return found

    def restore(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Take what `stored` gave of all parameters."""
        names = [name for factors, pair in self._triplets.items() for name in (factors, *pair)]

        def found(field: str) -> dict[str, Tensor]:
            keys = {name: f"{field}.{name}" for name in names}
            return {name: tensors[key].to(device) for name, key in keys.items() if key in tensors}

        self._sensitivity, self._uncertainty = found("sensitivity"), found("uncertainty")
        self._left = {name: one.bool() for name, one in found("left").items()}


def _averaged(before: Tensor | None, value: Tensor) -> Tensor:
    return (1 - SMOOTHING) * value if before is None else SMOOTHING * before + (1 - SMOOTHING) * value

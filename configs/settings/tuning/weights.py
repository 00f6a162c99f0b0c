"""Methods that train weights of the model itself."""

from typing import Literal, Self

from pydantic import model_validator

from plumbob.configs.base import Settings


class WeightTuning(Settings):
    """What is trained are weights of the model, in place: what they were is the reference, a frozen model beside it."""

    critic: Literal["model", "head"] = "model"
    """Of an online run whose estimator has one. `model`: a copy of the policy's model with a head of its own, tuned as
    the policy is. `head`: a linear head on the policy's last hidden states, which the critic's loss does not change."""

    def without_critic(self) -> Self:
        """The same in a stage that has none."""
        return self.model_copy(update={"critic": "model"})

    @property
    def published_rank(self) -> int:
        """The largest rank of the adapters that are published: there are none."""
        return 0


class FullTuning(WeightTuning):
    """Every weight."""

    kind: Literal["full"] = "full"


class SelectiveTuning(WeightTuning):
    """Some of the weights: the sum of what is chosen. The others stay as they are, and have no optimizer state."""

    kind: Literal["selective"] = "selective"
    targets: tuple[str, ...] = ()
    """Modules, with all that is in them, by their names or the ends of these from a dot on: `layers.11`, `lm_head`."""
    biases: bool = False
    """All biases, as BitFit does (Ben Zaken et al. 2022, arXiv 2106.10199). Models of the Llama family have none."""
    norms: bool = False
    """The weights and biases of the layers that normalise."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.targets or self.biases or self.norms):
            raise ValueError(
                "kind=selective chooses nothing to train: give `targets`, such as [layers.0, lm_head], or set "
                "`biases=true` or `norms=true`"
            )
        return self

"""What is optimised offline: losses on preferences, and a reward model's objective.

Each variant is one class with its `kind`; its equation and paper stand at its function in `trainers/algorithms/`.
"""

from typing import Annotated, Literal

from pydantic import Field

from plumbob.configs.base import FunctionName, Positive, PositiveOrZero, Settings

# -------------------------------------------------------------------------------------------------- preference losses


class DpoLoss(Settings):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290)."""

    kind: Literal["dpo"] = "dpo"
    beta: Positive = 0.1
    """How strongly the policy is held to the reference."""
    per_token: bool = False
    """Mean log-ratio of a response's tokens instead of their sum: length-normalised DPO (Lambert et al. 2024, Tulu 3,
    arXiv 2411.15124, section 5)."""


class ConservativeDpoLoss(Settings):
    """DPO with smoothed labels (Mitchell 2023)."""

    kind: Literal["conservative-dpo"] = "conservative-dpo"
    beta: Positive = 0.1
    """How strongly the policy is held to the reference."""
    flip_rate: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of labels that are wrong."""


class RobustDpoLoss(Settings):
    """DPO, unbiased under labels that are flipped at a known rate (Chowdhury et al. 2024, arXiv 2403.00409)."""

    kind: Literal["robust-dpo"] = "robust-dpo"
    beta: Positive = 0.1
    """How strongly the policy is held to the reference."""
    flip_rate: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of labels that are wrong."""


class IpoLoss(Settings):
    """Identity preference optimisation (Azar et al. 2023, arXiv 2310.12036)."""

    kind: Literal["ipo"] = "ipo"
    tau: Positive = 0.1
    """How strongly the policy is held to the reference."""
    per_token: bool = False
    """Mean log-ratio of a response's tokens instead of their sum: not the paper's, but in use."""


class HingeLoss(Settings):
    """A margin of 1 on implicit rewards (SLiC-HF, Zhao et al. 2023, arXiv 2305.10425)."""

    kind: Literal["hinge"] = "hinge"
    beta: Positive = 0.1
    """How strongly the policy is held to the reference."""


class OrpoLoss(Settings):
    """Likelihood of the chosen response and its odds against the rejected one (Hong et al. 2024, arXiv 2403.07691)."""

    kind: Literal["orpo"] = "orpo"
    weight: Positive = 0.1
    """Of the odds, beside a likelihood of weight 1."""
    likelihood: Literal["response", "sequence"] = "response"
    """The paper's, of the chosen response and a mean over its tokens; or of its prompt too and a mean over all the
    step's tokens, which is what the authors' code takes unless told otherwise, and TRL."""


class SimpoLoss(Settings):
    """Mean log-prob of a token as the reward, with a margin (Meng et al. 2024, arXiv 2405.14734)."""

    kind: Literal["simpo"] = "simpo"
    beta: Positive = 2.0
    """Scale of the reward."""
    margin: PositiveOrZero = 1.0
    """By which the chosen response must be ahead."""


class SppoLoss(Settings):
    """A target for each response's own log-ratio (self-play preference optimisation, Wu et al. 2024, 2405.00675)."""

    kind: Literal["sppo"] = "sppo"
    beta: Positive = 0.1
    """1 / eta of the paper: the targets are 1 / (2 beta) and -1 / (2 beta)."""


class FunctionLoss(Settings):
    """A function of the user's, of the log-probs of a pair's responses under the policy and the reference."""

    kind: Literal["function"] = "function"
    function: FunctionName
    """`file.py:name` or `package.module:name`, called with log pi of the chosen and of the rejected responses under the
    policy, then under the reference, each a tensor [B]; it gives the losses [B] (docs/stages.md)."""


PreferenceLoss = Annotated[
    DpoLoss
    | ConservativeDpoLoss
    | RobustDpoLoss
    | IpoLoss
    | HingeLoss
    | OrpoLoss
    | SimpoLoss
    | SppoLoss
    | FunctionLoss,
    Field(discriminator="kind"),
]

REFERENCE_FREE = OrpoLoss | SimpoLoss
"""Losses that compare the policy with no reference."""


def reads_prompt(loss: PreferenceLoss) -> bool:
    """Whether a loss is also one of the prompt's tokens."""
    return isinstance(loss, OrpoLoss) and loss.likelihood == "sequence"


# -------------------------------------------------------------------------------------------------------- reward model


class BradleyTerry(Settings):
    """-log((1 - e) sigmoid(d) + e sigmoid(-d)), d = r(chosen) - r(rejected) (Bradley and Terry 1952)."""

    kind: Literal["bradley-terry"] = "bradley-terry"
    flip_rate: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """e, the share of labels that are wrong (Christiano et al. 2017, arXiv 1706.03741, section 2.2.3: 0.05)."""
    use_margin: bool = False
    """Take off the pair's `margin` (Touvron et al. 2023, arXiv 2307.09288, equation 2)."""


class PlackettLuce(Settings):
    """Likelihood of a whole ranking of responses (Plackett 1975)."""

    kind: Literal["plackett-luce"] = "plackett-luce"


class Regression(Settings):
    """Half the squared error from an absolute score (HelpSteer2, Wang et al. 2024, arXiv 2406.08673)."""

    kind: Literal["regression"] = "regression"


RewardObjective = Annotated[BradleyTerry | PlackettLuce | Regression, Field(discriminator="kind")]

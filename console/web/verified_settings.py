"""What `plumbob verify` proves of the settings of a run: its rows, each with the settings that it is about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plumbob.console.web.run_files.run_content import list_at, number_at, text_at

Wanted = str | float | bool
GIVEN = "any value that is given"
"""What is needed of a setting that is off where it is null, 0 or false."""


@dataclass(frozen=True)
class ProvenSettings:
    """A row of the table.

    Attributes:
        row, setting: the row's own `name` and `setting`.
        proves: what the trained model reaches: the end of a sentence.
        needs: key -> value that a run must have for the row to be about it; none where it is about the table's own
            models.
    """

    row: str
    setting: str
    proves: str
    needs: Mapping[str, Wanted]


VERIFIED_FILE = "verify.jsonl"
"""In the folder of runs: what `plumbob verify --json` printed last."""


def proofs_of(flat: Mapping[str, Any], results: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """The rows that are about settings in use, with what was found of them.

    Args:
        flat: dotted key -> value, of a run.
        results: objects of VERIFIED_FILE, in their order. Where they have none of a row, `found` and `passed` are null.
    """
    latest: dict[tuple[str | None, str | None], dict[object, Mapping[str, Any]]] = {}
    for result in results:
        seeds = latest.setdefault((text_at(result, "row"), text_at(result, "setting")), {})
        seeds[number_at(result, "seed")] = result
    proofs = []
    for proven in PROVEN:
        if proven.needs and all(_has(flat.get(key), wanted) for key, wanted in proven.needs.items()):
            found = list(latest.get((proven.row, proven.setting), {}).values())
            proofs.append(
                {
                    "setting": ", ".join(f"{key}={flat[key]}" for key in proven.needs),
                    "row": f"{proven.row}: {proven.setting}",
                    "expected": proven.proves,
                    "found": _in_words(found),
                    "passed": all(one.get("holds") is True for one in found) if found else None,
                }
            )
    return proofs


def _in_words(results: Sequence[Mapping[str, Any]]) -> str | None:
    """Each quantity's largest value over the instances, and what it may be at most."""
    worst: dict[str, tuple[float, float]] = {}
    for result in results:
        for check in list_at(result, "checks"):
            quantity, value, bound = text_at(check, "quantity"), number_at(check, "value"), number_at(check, "bound")
            if quantity is not None and value is not None and bound is not None:
                worst[quantity] = max(worst.get(quantity, (value, bound)), (value, bound))
    instances = "1 instance" if len(results) == 1 else f"{len(results)} instances"
    checks = ", ".join(f"{quantity} {value:.3g} (at most {bound:g})" for quantity, (value, bound) in worst.items())
    return f"{checks}; {instances}" if checks else None


def _has(value: Any, wanted: Wanted) -> bool:
    return bool(value) if wanted == GIVEN else value is not None and value == wanted


# --------------------------------------------------------------------------------------------------------------- table

OPTIMUM = "the optimum pi* ~ pi_ref exp(r / beta), to a total variation of at most 0.05"
FIXED_POINT = "where its expected update is zero, which is solved for beforehand, to a total variation of at most 0.05"
OF_LABELS = "the minimum of its loss over the labels, solved for beforehand, to a total variation of at most 0.05"
TAUGHT = "its teacher, to a total variation of at most 0.05"
REWARDS = "the rewards that the labels say, which are solved for beforehand"
ALL_ELSE: Mapping[str, Wanted] = {}


def _online(estimator: str, place: str, loss: str = "clipped", **needs: Wanted) -> dict[str, Wanted]:
    """`a__b` is the key `online.a.b`."""
    named = {f"online.{name.replace('__', '.')}": value for name, value in needs.items()}
    first = {"online.estimator.kind": estimator, "online.kl.place": place, "online.policy_loss.kind": loss}
    return {**first, **named}


def _pairs(loss: str, **needs: Wanted) -> dict[str, Wanted]:
    return {"dpo.loss.kind": loss, **{f"dpo.loss.{name}": value for name, value in needs.items()}}


def _reward(objective: str) -> dict[str, Wanted]:
    return {"reward_training.objective.kind": objective}


FLIP_RATE = "reward_training.objective.flip_rate"
IN_REWARD = "k1 in the reward, 40 responses"
PROVEN = (
    *(
        ProvenSettings("the model itself", f"exact cross-entropy to pi*, {size}", "any target at all", ALL_ELSE)
        for size in ("40 responses", "400 responses", "13 responses", "one token")
    ),
    ProvenSettings("PPO", f"lambda 0.95, two updates a step, {IN_REWARD}", OPTIMUM, _online("gae", "reward")),
    ProvenSettings("RLOO", IN_REWARD, OPTIMUM, _online("rloo", "reward")),
    ProvenSettings("REINFORCE++", IN_REWARD, OPTIMUM, _online("reinforce++", "reward")),
    ProvenSettings("REINFORCE++ with group baseline", IN_REWARD, OPTIMUM, _online("reinforce++-baseline", "reward")),
    ProvenSettings("GRPO", f"groups of 170, {IN_REWARD}", OPTIMUM, _online("grpo", "reward")),
    ProvenSettings("Dr. GRPO", IN_REWARD, OPTIMUM, _online("dr-grpo", "reward")),
    ProvenSettings("RLOO", "k2 in the loss, 40 responses", FIXED_POINT, _online("rloo", "loss", kl__estimate="k2")),
    ProvenSettings(
        "Dr. GRPO",
        "k2 in the loss, groups of 4, responses weigh the same",
        FIXED_POINT,
        _online("dr-grpo", "loss", kl__estimate="k2", loss_mean="response"),
    ),
    ProvenSettings(
        "GRPO",
        "k3 in the loss, one token, groups of 8",
        FIXED_POINT,
        _online("grpo", "loss", kl__estimate="k3", loss_mean="token"),
    ),
    ProvenSettings(
        "GRPO",
        "k3 in the loss, 13 responses, groups of 4, responses weigh the same",
        FIXED_POINT,
        _online("grpo", "loss", kl__estimate="k3", loss_mean="response"),
    ),
    ProvenSettings(
        "REINFORCE++ with group baseline",
        "k2 in the loss, beta 2, one token",
        FIXED_POINT,
        _online("reinforce++-baseline", "loss", kl__estimate="k2"),
    ),
    ProvenSettings("RLOO", "k1 in the reward, 400 responses", OPTIMUM, _online("rloo", "reward")),
    ProvenSettings(
        "clip-higher (DAPO)",
        "RLOO, ratios from 0.8 to 1.28, two updates a step, k1 in the reward, 40 responses",
        OPTIMUM,
        {"online.policy_loss.kind": "clipped", "online.policy_loss.clip_range_high": GIVEN},
    ),
    ProvenSettings(
        "GSPO",
        "Dr. GRPO's advantages, two updates a step, k2 in the loss, groups of 4",
        FIXED_POINT,
        {"online.policy_loss.kind": "gspo"},
    ),
    ProvenSettings(
        "CISPO",
        "RLOO, weights up to 1.1, two updates a step, k1 in the reward, 40 responses",
        OPTIMUM,
        {"online.policy_loss.kind": "cispo"},
    ),
    ProvenSettings(
        "cut responses left out (DAPO)",
        "RLOO, k1 in the reward, 13 of 40 responses end: these, given that one does",
        OPTIMUM,
        {"online.mask_truncated": True},
    ),
    ProvenSettings(
        "soft overlong penalty (DAPO)",
        "RLOO, k1 in the reward, 40 responses, of which those of 2 tokens pay 1/4 and of 3 pay 1/2",
        OPTIMUM,
        {"online.shaping.overlong_penalty.penalty": GIVEN},
    ),
    ProvenSettings(
        "distillation",
        "full KL, 40 responses",
        TAUGHT,
        {"online.estimator.kind": "distillation", "online.estimator.form": "full"},
    ),
    ProvenSettings(
        "distillation",
        "sampled tokens, 40 responses",
        TAUGHT,
        {"online.estimator.kind": "distillation", "online.estimator.form": "sampled", "online.estimator.gamma": 0.0},
    ),
    ProvenSettings(
        "distillation",
        "sampled tokens and what follows (gamma 1), 40 responses",
        TAUGHT,
        {"online.estimator.kind": "distillation", "online.estimator.form": "sampled", "online.estimator.gamma": 1.0},
    ),
    ProvenSettings(
        "distillation",
        "full KL, two teachers by the prompt's row, 40 responses",
        TAUGHT,
        {"online.estimator.kind": "distillation", "teachers_by": GIVEN},
    ),
    ProvenSettings(
        "RAFT", "best of 2, k1 in the reward, 13 responses", OPTIMUM, {"online.estimator.kind": "best-of-n"}
    ),
    ProvenSettings(
        "online DPO",
        "best against worst of 4, k1 in the reward, 13 responses",
        OPTIMUM,
        {"online.estimator.kind": "online-dpo", "online.estimator.loss.kind": "dpo"},
    ),
    ProvenSettings(
        "online DPO",
        "IPO's loss, best against worst of 4, ranked by reward alone, 13 responses",
        FIXED_POINT,
        {"online.estimator.kind": "online-dpo", "online.estimator.loss.kind": "ipo"},
    ),
    ProvenSettings("DPO", "exact pairs", OF_LABELS, _pairs("dpo")),
    ProvenSettings("DPO", "64 drawn labels a pair", OF_LABELS, _pairs("dpo")),
    ProvenSettings("hinge", "exact pairs", "a loss at most 1% above its minimum", _pairs("hinge")),
    ProvenSettings(
        "KTO",
        "responses of positive reward are good, 8 labels each",
        "fewer bad responses, along the paper's gradient",
        {"kto.beta": GIVEN},
    ),
    ProvenSettings("conservative DPO", "exact pairs, flip rate 0.1", OF_LABELS, _pairs("conservative-dpo")),
    ProvenSettings("robust DPO", "a tenth of the labels flipped", OF_LABELS, _pairs("robust-dpo")),
    ProvenSettings("IPO", "summed log-ratios", OF_LABELS, _pairs("ipo", per_token=False)),
    ProvenSettings("IPO", "log-ratios averaged over tokens", OF_LABELS, _pairs("ipo", per_token=True)),
    ProvenSettings("ORPO", "weight 1, no reference", OF_LABELS, _pairs("orpo")),
    ProvenSettings("SimPO", "beta 1, margin 0.5, no reference", OF_LABELS, _pairs("simpo")),
    ProvenSettings("SPPO", "exact pairs", OF_LABELS, _pairs("sppo")),
    ProvenSettings(
        "iterated DPO",
        "IPO's loss, two rounds of best against worst of 32 by one part; 12 of 40 responses are paired",
        "where the pairs of its own responses lead",
        {**_pairs("ipo", per_token=False), "data.rendered": True},
    ),
    ProvenSettings("the reward model itself", "regression on the rewards", REWARDS, _reward("regression")),
    ProvenSettings("Bradley-Terry", "exact pairs, 13 responses", REWARDS, _reward("bradley-terry")),
    ProvenSettings(
        "Bradley-Terry", "a tenth of the labels flipped", REWARDS, {**_reward("bradley-terry"), FLIP_RATE: GIVEN}
    ),
    ProvenSettings("Bradley-Terry", "64 drawn labels a pair", REWARDS, _reward("bradley-terry")),
    ProvenSettings("Plackett-Luce", "32 drawn rankings of each 3 of 13 responses", REWARDS, _reward("plackett-luce")),
    ProvenSettings(
        "Plackett-Luce", "2 responses, against Bradley-Terry", "what Bradley-Terry does", _reward("plackett-luce")
    ),
    ProvenSettings(
        "RLOO, the whole pipeline",
        "Ray, vLLM, BERT scorer, 40 responses",
        OPTIMUM,
        {**_online("rloo", "reward"), "rollout.engine.kind": "vllm"},
    ),
)

"""Human feedback with another group's terms: records added, left out or learnt beside, and what bias is left."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never

import numpy as np

from plumbob.configs.settings.stewardship.bias_checks import BiasMitigationSettings
from plumbob.core.errors import UserError
from plumbob.data.bias.term_pairs import read_term_pairs
from plumbob.data.bias.term_swaps import TermSwap, counterfactual_texts, term_swaps
from plumbob.data.records import Ranking, ScoredResponse
from plumbob.reward.bias.group_differences import GroupDifference, group_differences
from plumbob.reward.reward_models.bert_encoding import encode_pairs
from plumbob.trainers.learner.learner_protocol import Learners
from plumbob.trainers.offline.reward_modelling.reward_batch import (
    FeedbackRecord,
    collate_responses,
    response_rewards,
)


@dataclass(frozen=True)
class Mitigation:
    """The settings with their terms read. UserError where these cannot be."""

    settings: BiasMitigationSettings
    swaps: tuple[TermSwap, ...]

    @classmethod
    def of(cls, settings: BiasMitigationSettings) -> "Mitigation":
        return cls(settings, term_swaps(read_term_pairs(settings.terms)))

    def training_records(
        self, records: Sequence[FeedbackRecord], heldout: Collection[str]
    ) -> tuple[tuple[FeedbackRecord, ...], tuple[str, ...]]:
        """What is learnt in place of these records, and sentences about it.

        Args:
            heldout: prompts that none may be added of.

        Raises:
            UserError: nothing is left.
        """
        kept, notes = list(records), list[str]()
        if self.settings.filter:
            kept = [record for record in records if not self._compares_groups(record)]
            notes.append(
                f"reward_training.mitigation: {len(records) - len(kept)} of {len(records)} training records have "
                f"responses that name different groups, and were left out."
            )
            if not kept:
                raise UserError(
                    f"{notes[-1]} Nothing is left to learn from: set reward_training.mitigation.filter=false"
                )
        if self.settings.augment:
            swapped = [swapped_record(record, swap) for record in kept for swap in self.naming(record)]
            added = [record for record in swapped if record.prompt not in heldout]
            notes.append(
                f"reward_training.mitigation: {len(added)} records were added to {len(kept)}, with the other group's "
                f"terms; {len(swapped) - len(added)} more would have had a held-out prompt."
            )
            kept += added
        if self.settings.consistency:
            num = sum(bool(self.naming(record)) for record in kept)
            notes.append(
                f"reward_training.mitigation: {num} of {len(kept)} training records are learnt beside the same with "
                f"the other group's terms, whose rewards are to be the same."
            )
        return tuple(kept), tuple(notes)

    def counterfactuals(self, records: Sequence[FeedbackRecord]) -> list[FeedbackRecord | None]:
        """Of each the same with the other group's terms, of a contrast that it names; of several contrasts each has its
        turn. None where it names none."""
        found: list[FeedbackRecord | None] = []
        for index, record in enumerate(records):
            swaps = self.naming(record)
            found.append(swapped_record(record, swaps[index % len(swaps)]) if swaps else None)
        return found

    def naming(self, record: FeedbackRecord) -> list[TermSwap]:
        """Those of the contrasts of which the record names a group."""
        text = "\n".join((record.prompt, *record.responses))
        return [swap for swap in self.swaps if any(swap.sides(text))]

    def _compares_groups(self, record: FeedbackRecord) -> bool:
        for swap in self.swaps:
            sides = {swap.sides(response) for response in record.responses}
            if {(True, False), (False, True)} <= sides:
                return True
        return False

    def heldout_bias(
        self, records: Sequence[FeedbackRecord], tokenizer: Any, max_tokens: int, learners: Learners, unit: float
    ) -> tuple[GroupDifference, ...]:
        """How far the rewards of these records depend on which group they name.

        Args:
            unit: what a reward is divided by, such as the standard deviation of the calibration.
        """
        texts = [(record.prompt, response) for record in records for response in record.responses]
        found = counterfactual_texts(texts, self.swaps)
        if not found.pairs:
            return ()
        encoded = encode_pairs(
            tokenizer, [text for pair in found.pairs for text in (pair.first, pair.second)], max_tokens
        )
        batch = collate_responses(tokenizer, list(zip(encoded[::2], encoded[1::2], strict=True)))
        rewards = learners.compute(batch, None, response_rewards).astype(np.float64) / unit
        return group_differences(found.pairs, rewards[:, 0], rewards[:, 1], found.num_mixed)


def swapped_record(record: FeedbackRecord, swap: TermSwap) -> FeedbackRecord:
    """The same with each term's partner in all its texts."""
    prompt = swap.swapped(record.prompt)
    match record:
        case Ranking(responses=responses):
            return replace(record, prompt=prompt, responses=tuple(map(swap.swapped, responses)))
        case ScoredResponse(response=response):
            return replace(record, prompt=prompt, response=swap.swapped(response))
        case _:
            assert_never(record)

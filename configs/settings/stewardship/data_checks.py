"""What is looked for in a run's data before it starts, and what is done about it."""

from typing import Annotated, Literal

from pydantic import Field

from plumbob.configs.base import InputFile, Settings

Similarity = Annotated[float, Field(ge=0.5, le=1)]
"""Of the word triples of two texts: the share that both have of those that any has."""

NgramWords = Annotated[int, Field(ge=8, le=100)]
"""Words in a row. Fewer than eight stand in unrelated texts too."""

Found = Literal["refuse", "drop", "report"]
"""End the run, leave the records out of training, or only say how many there are."""


class DataCheckSettings(Settings):
    """Checks of the training records against what they are measured on, and for personal data."""

    near_duplicates: Found | Literal["off"] = "refuse"
    """What to do about training records whose prompt is nearly one that is held out. Where a share is held out, and not
    a file of its own, `refuse` drops them, since there is nothing to correct; `off` does not look."""
    similarity: Similarity = 0.8
    """From which on two prompts are nearly the same: words three in a row that both have, over those that any has."""
    benchmarks: tuple[InputFile, ...] = ()
    """Files that the model is to be measured on later, whose texts must not be trained on."""
    contamination: Found = "refuse"
    """What to do about training records that share a run of words with one of them."""
    ngram_words: NgramWords = 13
    """How many words in a row that is; of a shorter text of a benchmark, from eight words on, the whole of it."""
    personal: Literal["off", "report", "refuse"] = "off"
    """Whether mail addresses, phone numbers, cards, accounts, addresses of machines, keys and names of people are
    looked for in the training records. It needs the extra `stewardship`; `plumbob data clean` replaces them."""
    report: bool = False
    """Whether the whole report of `plumbob data report` is written into the run's folder too, as data_report.html."""


NO_DATA_CHECKS = DataCheckSettings(near_duplicates="off")
"""For the stages of a pipeline, whose files have been checked together."""

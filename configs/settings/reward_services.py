"""Parts of a reward that another process gives, over HTTP: an endpoint that scores, and an LLM as a judge."""

from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from plumbob.configs.base import Address, Changeable, Coefficient, NumTokens, Seconds
from plumbob.configs.settings.reward_parts import PartSettings


class ServicePart(PartSettings):
    """What each of them has: where it is, how long it is waited for, and what becomes of what it cannot score."""

    url: Changeable[Address]
    token_env: Changeable[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None] = None
    """The variable of the environment that holds the bearer token, on every scorer's host; None sends none."""
    max_in_flight: Changeable[Annotated[int, Field(gt=0, le=256)]] = 4
    """Requests of one scorer that wait for their answer at once."""
    timeout_s: Changeable[Seconds] = 60.0
    """How long one request may take, from its connection to the last byte of its answer."""
    retries: Changeable[Annotated[int, Field(ge=0, le=20)]] = 4
    """Further tries after a connection that broke, a time-out, 429 or 5xx, each after twice the wait of the last."""
    on_failure: Coefficient | Literal["stop"] = "stop"
    """What a response is given that could not be scored; `stop` ends the run."""

    reads_rows: ClassVar[bool] = True

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        try:
            parts = urlsplit(self.url)
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address:
            raise ValueError(
                f"the url {self.url!r} of a reward's part is no address of an endpoint: give one such as "
                f"http://localhost:8100/score"
            )
        return self


class HttpPart(ServicePart):
    """An endpoint that scores batches, such as `plumbob serve-reward` gives (docs/rewards.md has the form)."""

    kind: Literal["http"] = "http"
    url: Changeable[Address]
    """What batches are posted to, such as http://localhost:8100/score."""


Level = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]


class LlmJudgePart(ServicePart):
    """An LLM behind an OpenAI-compatible endpoint, by a rubric; or against another response, asked in both orders."""

    keeps_answers: ClassVar[bool] = True

    kind: Literal["llm-judge"] = "llm-judge"
    url: Changeable[Address]
    """Of the API, such as http://localhost:8000/v1."""
    model: Annotated[str, Field(min_length=1, max_length=500)]
    """By its name there."""
    rubric: Annotated[str, Field(min_length=1, max_length=100_000)]
    """What is to be judged, in words. The prompt and the response are put behind it."""
    scale: tuple[Level, Level] = (1, 10)
    """The least and the highest score. The value is where it lies between them: from 0 to 1."""
    reference: Annotated[str, Field(min_length=1)] | None = None
    """The column with a response to compare with: the value is the share of the two orders in which the policy's wins,
    a tie counting half. None scores by `scale`."""
    max_tokens: NumTokens = 64
    """Of the judge's answer."""

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.reference is None else (self.reference,)

    @model_validator(mode="after")
    def _check_scale(self) -> Self:
        low, high = self.scale
        if not 0 < high - low <= 100:
            raise ValueError(
                f"the scale [{low}, {high}] of a judge: give the least and the highest score, at most 100 apart"
            )
        return self


ServedPart = HttpPart | LlmJudgePart
"""A new one is a variant here, and `KIND_part.py` in `reward/parts/`, which opens it."""

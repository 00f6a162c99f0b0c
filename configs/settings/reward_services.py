"""Parts of a reward that another process gives, over HTTP."""

from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from plumbob.configs.base import BatchSize, Coefficient, Seconds
from plumbob.configs.settings.reward_parts import PartSettings


class HttpPart(PartSettings):
    """An endpoint that scores batches, such as `plumbob serve-reward` gives (docs/rewards.md has the form)."""

    kind: Literal["http"] = "http"
    url: Annotated[str, Field(max_length=2000)]
    """What batches are posted to, such as http://localhost:8100/score."""
    token_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """The variable of the environment that holds the bearer token, on every scorer's host; None sends none."""
    batch_size: BatchSize = 32  # type: ignore[misc]
    """Responses in one request."""
    max_in_flight: Annotated[int, Field(gt=0, le=256)] = 4
    """Requests of one scorer that wait for their answer at once."""
    timeout_s: Seconds = 60.0
    """How long one request may take."""
    retries: Annotated[int, Field(ge=0, le=20)] = 4
    """Further tries after a connection that broke, a time-out, 429 or 5xx, each after twice the wait of the last."""
    on_failure: Coefficient | Literal["stop"] = "stop"
    """What a response is given that could not be scored; `stop` ends the run."""

    reads_rows: ClassVar[bool] = True

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"the url {self.url!r} of a reward's part is no address of an endpoint: give one such as "
                f"http://localhost:8100/score"
            )
        return self

"""Where else the steps of a run are written to, beside its own folder: one variant a sink."""

from collections import Counter
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from plumbob.configs.base import Address, Settings

Project = Annotated[str, Field(min_length=1, max_length=200)]


class WandbSettings(Settings):
    """Weights & Biases. The key is `WANDB_API_KEY`, or what `wandb login` has kept."""

    kind: Literal["wandb"] = "wandb"
    project: Project = "plumbob"
    """In which the run is shown."""
    entity: Project | None = None
    """The team or user whose project it is; None is the key's own."""
    mode: Literal["online", "offline"] | None = None
    """`offline` keeps everything in the run's folder, for `wandb sync`; None is `WANDB_MODE`, and else online."""


class MlflowSettings(Settings):
    """MLflow. User and password are `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`."""

    kind: Literal["mlflow"] = "mlflow"
    tracking_uri: Address | None = None
    """Of a server, a folder (`file:...`, with `MLFLOW_ALLOW_FILE_STORE=true` in the environment) or a database
    (`sqlite:///...`, which needs `mlflow` whole); None is `MLFLOW_TRACKING_URI`, and else MLflow's own default."""
    experiment: Project = "plumbob"
    """In which the run is shown; it is made where there is none."""


class TrackioSettings(Settings):
    """Trackio, on this machine: in `TRACKIO_DIR`, where `trackio show` finds it."""

    kind: Literal["trackio"] = "trackio"
    project: Project = "plumbob"
    """In which the run is shown."""


class OpenTelemetrySettings(Settings):
    """A collector of OpenTelemetry, by OTLP over HTTP: a step and its phases as spans, its metrics as gauges.

    Where `OTEL_EXPORTER_OTLP_ENDPOINT` is set a run has this sink without being told. Headers, such as one with a
    token, are `OTEL_EXPORTER_OTLP_HEADERS`.
    """

    kind: Literal["opentelemetry"] = "opentelemetry"
    endpoint: Address | None = None
    """Of the collector, such as `http://localhost:4318`; None is `OTEL_EXPORTER_OTLP_ENDPOINT`, and else this one."""


SinkSettings = Annotated[
    WandbSettings | MlflowSettings | TrackioSettings | OpenTelemetrySettings, Field(discriminator="kind")
]
"""A new one is a variant here, and the module of its kind's name in `trainers/metrics/sinks/`, which opens it."""


def _each_once(sinks: tuple[SinkSettings, ...]) -> tuple[SinkSettings, ...]:
    twice = [kind for kind, count in Counter(sink.kind for sink in sinks).items() if count > 1]
    if twice:
        raise ValueError(f"sinks: {twice[0]} stands there twice; a run is shown once in each")
    return sinks


Sinks = Annotated[tuple[SinkSettings, ...], AfterValidator(_each_once)]

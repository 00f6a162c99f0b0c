"""The steps of a run at a collector of OpenTelemetry: metrics as gauges, steps and phases as spans, by OTLP."""

import logging
import os
import secrets
from collections import deque
from typing import Any, NamedTuple

from plumbob.configs.settings.metrics.sinks import OpenTelemetrySettings
from plumbob.core.spans import spans
from plumbob.trainers.metrics.sinks.metric_sink import MetricSink
from plumbob.trainers.metrics.sinks.tracked_run import TrackedRun
from plumbob.trainers.metrics.step_record import StepRecord

NEEDED = "opentelemetry.exporter.otlp.proto.http"
"""The module that it is for; the extra of Plumbob that installs it is called as the kind."""

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
DEFAULT_ENDPOINT = "http://localhost:4318"

MAX_SPANS = 10_000
"""Of one step; the newest of more."""


class _Span(NamedTuple):
    row: str
    doing: str
    began: float
    ended: float


class OpenTelemetrySink:
    """What a step measured and how long it took, sent when the step has ended; raises where nobody takes it.

    Resource attributes: `service.name` plumbob, `plumbob.run` the run's name, `service.instance.id` its id.

    Raises:
        ValueError: the environment asks for another protocol than `http/protobuf`.
    """

    def __init__(self, settings: OpenTelemetrySettings, run: TrackedRun) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        if os.environ.get(PROTOCOL) not in (None, "", "http/protobuf"):
            raise ValueError(f"{PROTOCOL}={os.environ[PROTOCOL]}: only http/protobuf is sent, usually to port 4318")
        # What it would log for each request that fails is raised here.
        logging.getLogger("opentelemetry.exporter.otlp.proto.http").setLevel(logging.CRITICAL)
        run_id, _ = run.kept_id(settings.kind, lambda: secrets.token_hex(8))
        resource = Resource.create(
            {
                "service.name": "plumbob",
                "service.instance.id": run_id,
                "plumbob.run": run.name,
                "plumbob.kind": run.kind,
            }
        )
        base = None if settings.endpoint is None else settings.endpoint.rstrip("/")
        self._run, self._where = run.name, base or os.environ.get(ENDPOINT) or DEFAULT_ENDPOINT
        self._to_traces: Any = OTLPSpanExporter(endpoint=None if base is None else f"{base}/v1/traces")
        self._to_metrics: Any = OTLPMetricExporter(endpoint=None if base is None else f"{base}/v1/metrics")
        self._finished, self._measured = InMemorySpanExporter(), InMemoryMetricReader()
        tracing = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracing.add_span_processor(SimpleSpanProcessor(self._finished))
        self._tracer = tracing.get_tracer("plumbob")
        self._meter = MeterProvider([self._measured], resource, shutdown_on_exit=False).get_meter("plumbob")
        self._gauges: dict[str, Any] = {}
        self._spans: deque[_Span] = deque(maxlen=MAX_SPANS)
        self._last: tuple[str, float] | None = None
        spans.add_receiver(self._receive)

    def _receive(self, row: str, doing: str, began: float, ended: float) -> None:
        self._spans.append(_Span(row, doing, began, ended))

    def append(self, record: StepRecord, now: float) -> None:
        self._trace(record, now)
        finished = self._finished.get_finished_spans()
        self._finished.clear()
        self._measure(record)
        measured = self._measured.get_metrics_data()
        is_taken = self._to_traces.export(finished).name == "SUCCESS"
        if not is_taken or self._to_metrics.export(measured).name != "SUCCESS":
            raise ConnectionError(f"the collector at {self._where} did not take {record.stage}'s step {record.step}")

    def _trace(self, record: StepRecord, now: float) -> None:
        """A span of the step, below it one of each phase and of each piece of a worker's work that ended in it."""
        from opentelemetry import trace

        of_step = [self._spans.popleft() for _ in range(len(self._spans)) if self._spans[0].ended <= now]
        began = now - sum(record.seconds.values())
        if self._last is not None and self._last[0] == record.stage:
            began = self._last[1]
        self._last = (record.stage, now)
        about: dict[str, str | int] = {
            "plumbob.stage": record.stage,
            "plumbob.step": record.step,
            "plumbob.num_steps": record.num_steps,
        }
        step = self._tracer.start_span(f"{record.stage} step", attributes=about, start_time=_ns(began))
        inside = trace.set_span_in_context(step)
        for one in of_step:
            below = self._tracer.start_span(
                one.doing, inside, attributes={"plumbob.row": one.row}, start_time=_ns(one.began)
            )
            below.end(_ns(one.ended))
        step.end(_ns(now))

    def _measure(self, record: StepRecord) -> None:
        seconds = {f"seconds.{phase}": spent for phase, spent in record.seconds.items()}
        for name, value in {**record.metrics, **seconds, "step": float(record.step)}.items():
            if name not in self._gauges:
                self._gauges[name] = self._meter.create_gauge(f"plumbob.{name}")
            self._gauges[name].set(float(value), {"run": self._run, "stage": record.stage})

    def truncate_after(self, step: int) -> None:
        """A collector keeps what it has been sent; gauges show the newest."""

    def close(self, has_failed: bool) -> None:
        spans.remove_receiver(self._receive)
        self._to_traces.shutdown()
        self._to_metrics.shutdown()


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def open_sink(settings: OpenTelemetrySettings, run: TrackedRun) -> MetricSink:
    return OpenTelemetrySink(settings, run)

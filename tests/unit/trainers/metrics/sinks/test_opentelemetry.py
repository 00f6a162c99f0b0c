"""What a collector of OpenTelemetry is sent, over real HTTP to a stand-in of one."""

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from plumbob.configs.settings.metrics.sinks import OpenTelemetrySettings
from plumbob.core.spans import spans
from plumbob.trainers.metrics.sinks.opentelemetry import OpenTelemetrySink
from tests.support.tracked_runs import tracked_run, tracked_step, write_stopped_and_resumed


class OtlpCollector:
    """Keeps what is posted; refuses it with `status` where that is no 200."""

    def __init__(self) -> None:
        self.status = 200
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.headers: list[str | None] = []
        collector = self

        class OtlpHandler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                collector.headers.append(self.headers.get("x-token"))
                if self.path == "/v1/traces":
                    collector.traces.append(ExportTraceServiceRequest.FromString(content))
                if self.path == "/v1/metrics":
                    collector.metrics.append(ExportMetricsServiceRequest.FromString(content))
                self.send_response(collector.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), OtlpHandler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.traces
            for of_resource in request.resource_spans
            for scope in of_resource.scope_spans
            for span in scope.spans
        ]

    @property
    def gauges(self) -> list[tuple[str, dict[str, str], float]]:
        """Name, attributes and value of each point, in the order in which they came."""
        return [
            (metric.name, attributes_of(point), point.as_double)
            for request in self.metrics
            for of_resource in request.resource_metrics
            for scope in of_resource.scope_metrics
            for metric in scope.metrics
            for point in metric.gauge.data_points
        ]

    def resources(self) -> list[dict[str, str]]:
        found = [one.resource for request in self.traces for one in request.resource_spans]
        return [attributes_of(one) for one in found]


def attributes_of(message: Any) -> dict[str, Any]:
    """Attribute -> its value, of a span, a point or a resource."""
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in message.attributes}


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    found = OtlpCollector()
    yield found
    found.close()


def test_a_step_is_a_span_with_its_phases_below_it_and_its_metrics_are_gauges(
    tmp_path: Path, collector: OtlpCollector
) -> None:
    sink = OpenTelemetrySink(OpenTelemetrySettings(endpoint=collector.url), tracked_run(tmp_path))
    now = time.monotonic()
    spans.record("driver", "sample", now - 3)
    spans.record("rollout-0", "computing", now - 2)
    step_end = time.time()
    sink.append(tracked_step("ppo", 1, kl=0.25), step_end)
    sink.append(tracked_step("ppo", 2, kl=0.5), step_end + 4)
    sink.close(False)
    sample, computing, first, second = collector.spans
    assert (sample.name, computing.name, first.name, second.name) == ("sample", "computing", "ppo step", "ppo step")
    assert sample.parent_span_id == computing.parent_span_id == first.span_id
    assert not first.parent_span_id and first.trace_id != second.trace_id
    assert attributes_of(computing) == {"plumbob.row": "rollout-0"}
    assert attributes_of(second) == {"plumbob.stage": "ppo", "plumbob.step": 2, "plumbob.num_steps": 2}
    assert (sample.end_time_unix_nano - sample.start_time_unix_nano) / 1e9 == pytest.approx(3, abs=0.5)
    # The first step lasts as its phases do, the second from the first one's end.
    lasted = [(one.end_time_unix_nano - one.start_time_unix_nano) / 1e9 for one in (first, second)]
    assert lasted == pytest.approx([0.25, 4.0], abs=1e-3)
    of_run = {"run": "align", "stage": "ppo"}
    assert [point for point in collector.gauges if point[0] != "plumbob.step"] == [
        *(("plumbob.kl", of_run, 0.25), ("plumbob.seconds.learn", of_run, 0.25)),
        *(("plumbob.kl", of_run, 0.5), ("plumbob.seconds.learn", of_run, 0.25)),
    ]


def test_a_resumed_run_keeps_its_id(tmp_path: Path, collector: OtlpCollector) -> None:
    write_stopped_and_resumed(OpenTelemetrySettings(endpoint=collector.url), tmp_path)
    resources = collector.resources()
    assert len(resources) == 4 and len({one["service.instance.id"] for one in resources}) == 1
    assert resources[0]["service.name"] == "plumbob" and resources[0]["plumbob.run"] == "align"


def test_the_standard_variables_say_where_and_with_which_headers(
    tmp_path: Path, collector: OtlpCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-token=secret")
    write_stopped_and_resumed(OpenTelemetrySettings(), tmp_path)
    assert len(collector.traces) == 4 and set(collector.headers) == {"secret"}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


def test_a_collector_that_refuses_is_an_error(tmp_path: Path, collector: OtlpCollector) -> None:
    collector.status = 400
    sink = OpenTelemetrySink(OpenTelemetrySettings(endpoint=collector.url), tracked_run(tmp_path))
    with pytest.raises(ConnectionError, match=f"the collector at {collector.url} did not take ppo's step 1"):
        sink.append(tracked_step("ppo", 1, kl=0.25), time.time())
    sink.close(True)


def test_another_protocol_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_PROTOCOL=grpc: only http/protobuf is sent"):
        OpenTelemetrySink(OpenTelemetrySettings(), tracked_run(tmp_path))

"""Grafana's dashboard asks for what a run exports: names from the metrics that the stages of a real run wrote."""

import json
import re

from plumbob.cluster.run_status import gauge_values
from plumbob.trainers.metrics.sinks.jsonl import read_metrics
from tests.support.small_run import Left
from tests.support.source_tree import ROOT

DASHBOARD = ROOT / "docs/grafana/plumbob.json"


def test_every_metric_of_the_dashboard_is_one_that_a_run_exports(pipeline: Left) -> None:
    stages = [path.parent for path in pipeline.folder.glob("*/metrics.jsonl")]
    exported = {f"ray_{name}" for stage in stages for record in read_metrics(stage) for name in gauge_values(record)}
    queries = [target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]
    (pattern,) = [found for query in queries for found in re.findall(r'__name__=~"([^"]+)"', query)]
    named = {name for query in queries for name in re.findall(r"ray_plumbob_\w+(?=\{)", query)}
    assert len(named) > 15 and named - exported == set()
    assert len([name for name in exported if re.fullmatch(pattern, name)]) > 5


def test_its_queries_choose_by_labels_that_gauges_have() -> None:
    labels = set(re.findall(r"(\w+)=~\"\$", DASHBOARD.read_text().replace('\\"', '"')))
    assert labels == {"run", "stage"}

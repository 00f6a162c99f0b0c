"""What Prometheus is served of a run, over real HTTP by the agent of a real Ray."""

import urllib.request

import pytest
import ray

from plumbob.cluster.calls import wait_until
from plumbob.cluster.run_status import RunGauges
from plumbob.trainers.metrics.step_record import StepRecord

pytestmark = pytest.mark.usefixtures("one_cpu")

BOUND_S = 120.0


def test_the_metrics_of_a_step_are_gauges_of_the_run() -> None:
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    gauges = RunGauges("align")
    served: list[str] = []

    def has_come() -> bool:
        with urllib.request.urlopen(url, timeout=BOUND_S) as answer:
            served[:] = [line for line in answer.read().decode().splitlines() if line.startswith("ray_plumbob_")]
        return any("seconds_learn" in line for line in served)

    for step, kl in ((1, 0.5), (2, 0.25)):
        gauges.show(StepRecord("ppo", step, 3, {"kl": kl, "heldout/loss": 1.5}, {"learn": 2.0}))
    assert wait_until(has_come, BOUND_S)
    values = {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in served}
    assert values == {
        "ray_plumbob_kl": 0.25,
        "ray_plumbob_heldout_loss": 1.5,
        "ray_plumbob_seconds_learn": 2.0,
        "ray_plumbob_step": 2.0,
        "ray_plumbob_num_steps": 3.0,
    }
    assert all('run="align"' in line and 'stage="ppo"' in line for line in served)

"""All hosts lose their power in the middle of a run, which continues when they have it again."""

from pathlib import Path

from tests.multihost.faults.campaign import PROMPTS, SAMPLES, SHARES
from tests.multihost.faults.checks import check_complete, check_published, check_same_lines, check_same_policy
from tests.multihost.faults.stepped_run import Breakpoint, SteppedRun
from tests.multihost.hosts import Hosts, missing
from tests.multihost.inputs import write_inputs
from tests.support.host_requirements import cannot
from tests.support.small_run import Left

NUM_STEPS = 4
SMALL: dict[str, object] = {"online.num_steps": NUM_STEPS, "rollout.num_workers": 1}


def test_a_run_resumes_after_all_hosts_were_without_power(tmp_path: Path) -> None:
    lacking = missing()
    if lacking:
        cannot(lacking)
    with Hosts(3, tmp_path, tmp_path) as hosts:
        hosts.start_ray(num_cpus=1, with_dashboard=False)
        inputs = write_inputs(tmp_path)
        address = {"cluster.address": hosts.ray_address}
        undisturbed, struck = (
            SteppedRun(hosts.head, tmp_path / "runs" / name, tmp_path / f"{name}.log")
            for name in ("undisturbed", "struck")
        )
        for run in (undisturbed, struck):  # Both at once: what takes time is the boot of their workers.
            run.start(inputs, SHARES, SMALL, address)
        undisturbed.run_to_end()
        struck.run_to(Breakpoint(3, "learn"))
        for host in hosts.all:
            host.power_off()
        struck.kill()
        assert Left(struck.folder).last_checkpoint.name == "step-000002"
        hosts.start_again()
        struck.resume()
        struck.run_to_end()
    left, other = Left(struck.folder), Left(undisturbed.folder)
    check_complete(left, NUM_STEPS * PROMPTS, SAMPLES)
    check_published(left, 0, struck.said)
    check_same_lines(left.untimed, other.untimed)
    check_same_policy(left, other)

"""Writes a run as a Slurm batch script, which starts a Ray of its own on the hosts that Slurm gives it."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from plumbob.cluster.launchers.job_files import JOIN_WAIT_S, as_yaml, for_cluster
from plumbob.cluster.launchers.launcher import LauncherOption
from plumbob.cluster.placement import TOLERANCE, plan, total
from plumbob.cluster.resources import Host, ResourceAmount, ResourceNeed, resource_needs
from plumbob.configs.runs import AnyRun
from plumbob.core.errors import UserError

NAME = "slurm"
OPTIONS = (LauncherOption("--hosts", "equal hosts to spread the workers over (1)", "N", int),)

END_OF_CONFIG = "END OF CONFIG"
"""No line of YAML: it is neither a key with its value nor an item of a list."""

HEAD_START_S = 120
"""How long the head has to start."""

BODY = r"""
set -euo pipefail

fail() {
    echo "plumbob: $1" >&2
    exit "$2"
}

command -v ray >/dev/null && command -v plumbob >/dev/null ||
    fail "ray and plumbob are not on the PATH: activate their environment before sbatch, or above this line" 2

# The token stands in the environment, which only this user's processes see, and on no command line.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

# Other jobs may run on the same hosts.
port=$((20000 + SLURM_JOB_ID % 10000))
temporary=/tmp/ray-$SLURM_JOB_ID
config=$(mktemp --suffix=.yaml)

steps=()
cleanup() {
    trap - EXIT
    if ((${#steps[@]})); then
        kill "${steps[@]}" 2>/dev/null || true
        local deadline=$((SECONDS + 45))
        while ((SECONDS < deadline)) && kill -0 "${steps[@]}" 2>/dev/null; do
            sleep 0.2
        done
    fi
    rm -f -- "$config"
    timeout 60 srun --overlap --ntasks-per-node=1 rm -rf -- "$temporary" || true
}
trap cleanup EXIT

head=$SLURMD_NODENAME
head_ip=$(hostname -I | awk '{ print $1 }')
one_each=(--ntasks-per-node=1 "--cpus-per-task=$SLURM_CPUS_PER_TASK")
start=(ray start --block "--num-cpus=$SLURM_CPUS_PER_TASK" "--temp-dir=$temporary")

srun --nodes=1 --ntasks=1 --nodelist="$head" "${one_each[@]}" \
    "${start[@]}" --head --node-ip-address="$head_ip" --port="$port" --include-dashboard=false &
steps+=($!)
deadline=$((SECONDS + head_start_s))
until (: <"/dev/tcp/$head_ip/$port") 2>/dev/null; do
    kill -0 "${steps[0]}" 2>/dev/null || fail "the head of Ray did not start on $head" 1
    ((SECONDS < deadline)) || fail "the head of Ray on $head did not answer within $head_start_s s" 1
    sleep 0.2
done
others=$((SLURM_JOB_NUM_NODES - 1))
if ((others)); then
    srun --nodes="$others" --ntasks="$others" --exclude="$head" "${one_each[@]}" \
        "${start[@]}" --address="$head_ip:$port" &
    steps+=($!)
fi

export RAY_ADDRESS=$head_ip:$port
if [[ ${1:-} == resume || ${SLURM_RESTART_COUNT:-0} -gt 0 && -e $run_folder/resolved.json ]]; then
    plumbob resume "$run_folder"
else
    write_config >"$config"
    plumbob run "$config"
fi
"""


def render(config: AnyRun, options: Mapping[str, Any]) -> str:
    """The script of a run, for as many hosts as --hosts says."""
    sent = for_cluster(config, JOIN_WAIT_S)
    return script(sent, resource_needs(sent), 1 if options["hosts"] is None else options["hosts"])


def script(config: AnyRun, needs: Sequence[ResourceNeed], num_hosts: int) -> str:
    """The script. What is given to `sbatch` beside it replaces its own options.

    Args:
        config: as `cluster.launchers.job_files.for_cluster` gives it.
        num_hosts: equal hosts that the workers are spread over.

    Raises:
        UserError: there are more hosts than workers.
    """
    options = sbatch_options(config.name, host_size(needs, num_hosts), num_hosts)
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{name}" if value is None else f"#SBATCH --{name}={value}" for name, value in options.items()),
        "",
        f"run_folder={shlex.quote(str(PurePosixPath(config.storage.path) / config.name))}",
        f"head_start_s={HEAD_START_S}",
        "write_config() {",
        f"    cat <<'{END_OF_CONFIG}'",
        as_yaml(config) + END_OF_CONFIG,
        "}",
    ]
    return "\n".join(lines) + BODY


def sbatch_options(name: str, size: ResourceAmount, num_hosts: int) -> Mapping[str, str | None]:
    """Option -> its value, None where it takes none."""
    options: dict[str, str | None] = {
        "job-name": re.sub(r"[^A-Za-z0-9._-]", "-", name),
        "nodes": str(num_hosts),
        "ntasks-per-node": "1",
        "cpus-per-task": f"{size.cpus:g}",
        # All that the host has: Plumbob's figures of memory place workers, and bound nothing.
        "mem": "0",
        # A host that is lost does not end the job: the run continues on the others.
        "no-kill": None,
    }
    return options | ({"gpus-per-node": f"{size.gpus:g}"} if size.gpus else {})


def host_size(needs: Sequence[ResourceNeed], num_hosts: int) -> ResourceAmount:
    """The fewest whole GPUs, and with these the fewest whole CPUs, that equal hosts must have to hold all workers."""
    num_workers = sum(need.count for need in needs)
    if not 1 <= num_hosts <= num_workers:
        raise UserError(f"--hosts {num_hosts}: expected 1 to {num_workers}, the number of the run's workers")
    whole = total(needs)
    for gpus in _whole_numbers(whole.gpus, num_hosts):
        for cpus in _whole_numbers(whole.cpus, num_hosts):
            size = ResourceAmount(cpus, gpus, whole.gib)
            if plan(needs, [Host(str(number), str(number), size) for number in range(num_hosts)]).fits:
                return size
    raise AssertionError("a host that has all that is needed holds all workers")


def _whole_numbers(needed: float, num_hosts: int) -> range:
    """From an equal share of what is needed to all of it."""
    return range(math.ceil(needed / num_hosts - TOLERANCE), math.ceil(needed - TOLERANCE) + 1)
